"""A model run on the CPU: a graph by OpenVINO or ONNX Runtime, what `export.mnn` wrote by MNN."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.errors import ExportError
from export.parity import Matting

if TYPE_CHECKING:
    import openvino

# As in model.py: they would report to their makers.
sys.modules.setdefault("openvino_telemetry", None)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def onnx_matte(onnx: Path, target: str, precision: str = "fp32") -> Matting:
    """Return an ONNX file as the wire contract's function: "cpu" and "openvino" are OpenVINO.

    `precision` is how OpenVINO computes a graph, see `compile_openvino`; ONNX Runtime computes
    every graph as it is.
    """
    if target in ("cpu", "openvino"):
        compiled = compile_openvino(onnx, precision)
        return lambda image, trimap: compiled({"image": image, "trimap": trimap})["alpha"]
    return onnxruntime_matte(onnx)


def onnxruntime_matte(onnx: Path, provider: str = "CPUExecutionProvider") -> Matting:
    """Return an ONNX file, run by one of ONNX Runtime's providers, as the wire contract's function.

    Raises
    ------
    ExportError
        This ONNX Runtime has no such provider, or finds nothing that it runs on.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=[provider])
    if provider not in session.get_providers():  # it takes the CPU, and warns
        raise ExportError(f"ONNX Runtime has no {provider} that works here")
    return lambda image, trimap: session.run(["alpha"], {"image": image, "trimap": trimap})[0]


def mnn_matte(model: Path) -> Matting:
    """Return a model.mnn as the wire contract's function; the images of a batch run one by one.

    Its first run picks how each layer is computed, by the size and the number of cores: both are as
    in `model.py`. Elsewhere sums differ in the last digits.
    """
    run = load_mnn(model, ["image", "trimap"], "alpha")
    run(np.zeros((1, 256, 256, 3), np.uint8), np.full((1, 256, 256, 1), 128, np.uint8))

    def matte(images: np.ndarray, trimaps: np.ndarray) -> np.ndarray:
        pairs = [(images[i : i + 1], trimaps[i : i + 1]) for i in range(len(images))]
        return np.concatenate([run(*pair) for pair in pairs])

    return matte


def load_mnn(model: Path, inputs: list[str], output: str) -> Callable[..., np.ndarray]:
    """Return what MNN computes in FP32 of a file that `export.mnn` wrote: arrays to an array."""
    settings = {"backend": "CPU", "numThread": physical_cores(), "precision": "high"}
    with stdout_as_stderr():
        import MNN

        network = MNN.nn.load_module_from_file(
            str(model),
            inputs,
            [output],
            runtime_manager=MNN.nn.create_runtime_manager((settings,)),
        )
    types = {np.dtype(np.uint8): MNN.expr.uint8, np.dtype(np.float32): MNN.expr.float}

    def run(*arrays: np.ndarray) -> np.ndarray:
        given = [MNN.expr.const(x, x.shape, MNN.expr.NCHW, types[x.dtype]) for x in arrays]
        found = network.forward(given)
        if not found:
            raise ExportError(f"MNN has not enough memory for {arrays[0].shape}")
        return np.array(found[0].read())

    return run


def physical_cores() -> int:
    """Return on how many cores this process may run, as `model.py` counts them on Linux."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    siblings = "/sys/devices/system/cpu/cpu{}/topology/core_cpus_list"
    files = [Path(siblings.format(number)) for number in os.sched_getaffinity(0)]
    return len({file.read_text() if file.exists() else file for file in files})


@contextmanager
def stdout_as_stderr() -> Iterator[None]:
    """Send to stderr what a C library prints to stdout, where results go."""
    flush = ctypes.CDLL(None).fflush
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def compile_openvino(onnx: Path, precision: str) -> "openvino.CompiledModel":
    """Compile a graph for the CPU: one in FP32, to be computed in "fp32" or "bf16", or in "int8".

    What is not quantised in the latter is computed in `openvino_precision`.
    """
    import openvino

    hint = openvino_precision() if precision == "int8" else precision
    settings = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[hint]}
    return openvino.compile_model(onnx, "CPU", settings)


def openvino_precision() -> str:
    """Return the precision in which an FP32 graph is computed where it may be in bf16.

    "bf16" where the processor has such products, which are twice as fast, else "fp32": OpenVINO's
    own choice but for Arm, where that is FP16.
    """
    import openvino

    hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if hint == openvino.Type.bf16 else "fp32"
