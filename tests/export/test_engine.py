"""What is asked of TensorRT and of the machine, and which GPU it is."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock, Mock, create_autospec

import numpy as np
import pytest

from export.engine import (
    Profile,
    build_engine,
    engine_matte,
    import_tensorrt,
    take_sizes_after_casts,
)
from export.errors import ExportError
from export.export import Exported

ROOT = Path(__file__).parents[2]

CUDA = """
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) {
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  return visible && !*visible ? 100 : 0;
}
int cuDeviceGet(int *device, int ordinal) { *device = 7 + ordinal; return 0; }
int cuDeviceGetPCIBusId(char *address, int size, int device) {
  strncpy(address, device == 7 ? "0000:3B:00.0" : "another", size);
  return 0;
}
"""
"""Of CUDA's driver, which here names the second GPU of nvidia-smi's first."""

NVIDIA_SMI = """#!/bin/sh
case "$*" in
*--id=0000:3B:00.0) echo 'NVIDIA H200, 9.0, 570.1' ;;
*--id=*) exit 6 ;;
*) printf 'NVIDIA T4, 7.5, 570.1\\n%s' "$OTHERS" ;;
esac
"""


@pytest.fixture
def trt() -> ModuleType:
    """What Polygraphy does with TensorRT, by that for RTX."""
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    import_tensorrt("tensorrt-rtx")  # what Polygraphy stays with in this process
    from polygraphy.backend import trt

    return trt


@pytest.fixture
def tensorrt(
    trt: ModuleType, nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """A TensorRT with little more than a version, on a machine with a GPU."""
    tensorrt = ModuleType("tensorrt")
    tensorrt.__version__ = "10.13.3"
    tensorrt.TacticSource = SimpleNamespace(EDGE_MASK_CONVOLUTIONS="edge", JIT_CONVOLUTIONS="jit")
    tensorrt.LayerType = SimpleNamespace(CAST="cast", SHAPE="shape", CONVOLUTION="convolution")
    tensorrt.float16 = "half"
    tensorrt.Builder = lambda logger: None
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    nvidia_smi("NVIDIA H200", "9.0")
    return tensorrt


@pytest.fixture
def network() -> MagicMock:
    """A network of a convolution and an activation."""
    network = MagicMock(num_inputs=0)
    layers = [Mock(type=kind, precision=None) for kind in ("convolution", "activation")]
    network.__iter__.side_effect = lambda: iter(layers)
    return network


@pytest.mark.parametrize(
    ("version", "strongly_typed", "flags"),
    [
        ("8.6.1", False, ["FP16", "PREFER_PRECISION_CONSTRAINTS"]),
        ("10.13.3", True, ["STRONGLY_TYPED"]),
        ("11.0.0", True, ["STRONGLY_TYPED"]),
    ],
)
def test_precision_is_the_graphs_from_tensorrt_10_on(
    version: str,
    strongly_typed: bool,
    flags: list[str],
    tensorrt: ModuleType,
    trt: ModuleType,
    network: MagicMock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What Polygraphy is asked for."""
    tensorrt.__version__ = version
    parse = create_autospec(trt.network_from_onnx_path, return_value=(None, network, None))
    build = create_autospec(trt.engine_bytes_from_network, return_value=b"engine")
    monkeypatch.setattr(trt, "network_from_onnx_path", parse)
    monkeypatch.setattr(trt, "engine_bytes_from_network", build)
    engine, facts = build_engine(tmp_path / "model.onnx", "tensorrt", "fp16", Profile())
    assert engine == b"engine"
    assert (facts["version"], facts["flags"]) == (version, flags)
    assert facts["gpu"] == {"name": "NVIDIA H200", "compute_capability": "9.0", "driver": "570.1"}
    assert parse.call_args.kwargs["strongly_typed"] == strongly_typed
    config = build.call_args.args[1]
    assert config.fp16 != strongly_typed
    assert config.precision_constraints == (None if strongly_typed else "prefer")
    convolution, activation = network
    assert (convolution.precision, activation.precision) == (
        (None, None) if strongly_typed else ("half", None)
    )
    assert convolution.set_output_type.called != strongly_typed
    assert config.tactic_sources == (None if strongly_typed else ["edge", "jit"])
    assert config.profiles[0]["image"].max == (8, 1088, 1920, 3)


def test_nothing_but_casts_reads_the_pixels(trt: ModuleType, exported: Exported) -> None:
    """By TensorRT for RTX, whose builder takes the network afterwards, see `test_plan`."""
    import tensorrt_rtx

    parsed = trt.network_from_onnx_path(str(exported.artifact), strongly_typed=True)
    take_sizes_after_casts(parsed[1], tensorrt_rtx)
    readers = [
        layer.type
        for layer in parsed[1]
        for index in range(layer.num_inputs)
        if (tensor := layer.get_input(index)) and tensor.dtype == tensorrt_rtx.uint8
    ]
    assert readers == [tensorrt_rtx.LayerType.CAST] * 2


def test_a_driver_that_is_too_old_is_named(
    tensorrt: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    tensorrt.Builder = refuse
    with pytest.raises(ExportError, match=r"TensorRT 10\.13\.3 finds no GPU .* the driver \(570"):
        build_engine(tmp_path / "model.onnx", "tensorrt", "fp16", Profile())


@pytest.mark.parametrize(
    ("cache", "error"), [("sealed/x", PermissionError), ("", IsADirectoryError)]
)
@pytest.mark.usefixtures("tensorrt")
def test_a_timing_cache_that_cannot_be_written_is_found_before_an_engine_is_built(
    cache: str,
    error: type[OSError],
    trt: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed = Mock(side_effect=PermissionError(errno.EACCES, "sealed"))  # root may do anything
    monkeypatch.setattr("matting.files.TemporaryFile", sealed)
    build = create_autospec(trt.engine_bytes_from_network)
    monkeypatch.setattr(trt, "engine_bytes_from_network", build)
    with pytest.raises(error, match=str(tmp_path / cache.partition("/")[0])):
        build_engine(
            tmp_path / "model.onnx",
            "tensorrt",
            "fp16",
            Profile(),
            timing_cache=tmp_path / cache,
        )
    assert not build.called


def test_answers_stay_and_an_engine_leaves_the_gpu_with_the_function_that_asks_it(
    trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polygraphy.backend.base import BaseRunner

    buffer = np.empty((1, 2, 3, 1), np.uint8)

    class Runner(BaseRunner):
        def infer(self, pair: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            buffer[:] = pair["trimap"]
            return {"alpha": buffer}

    runner = Runner()
    monkeypatch.setattr(trt, "TrtRunner", lambda _: runner)
    matte = engine_matte(b"engine", "tensorrt-rtx")
    image, trimap = np.zeros((1, 2, 3, 3), np.uint8), np.full((1, 2, 3, 1), 255, np.uint8)
    first, second = matte(image, trimap), matte(image, trimap // 2)
    np.testing.assert_array_equal(first, trimap)
    np.testing.assert_array_equal(second, trimap // 2)
    assert runner.is_active
    del matte
    assert not runner.is_active


@pytest.mark.parametrize(
    ("others", "visible", "name"),
    [
        ("", None, "NVIDIA T4"),
        ("NVIDIA H200, 9.0, 570.1", None, "NVIDIA H200"),
        ("", "1", "NVIDIA H200"),
        ("NVIDIA H200, 9.0, 570.1", "", None),
    ],
)
def test_the_gpu_is_the_one_that_cuda_takes(
    others: str, visible: str | None, name: str | None, tmp_path: Path
) -> None:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc, for a library in the driver's place")
    (tmp_path / "cuda.c").write_text(CUDA)
    compile_ = ["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "cuda.c"]
    subprocess.run(compile_, check=True)
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(tmp_path),
        "OTHERS": others,
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    program = "from export.engine import find_gpu; print(find_gpu().name)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if name is None:
        assert "ExportError: no NVIDIA GPU here" in done.stderr
    else:
        assert done.stdout == f"{name}\n", done.stderr
