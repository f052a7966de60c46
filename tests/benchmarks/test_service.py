"""What runs a model, as its server's configuration and its repository's manifest tell."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

pytest.importorskip("torch")

from benchmarks.service import Served, what_serves
from export.errors import ExportError
from export.repository import CONFIG, TEMPLATE, read_config, with_parameters
from export.runtime import openvino_precision

NATIVE = openvino_precision()
"""What OpenVINO computes in on this processor if it is not told."""


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a server have read a configuration."""

    def say(config: str) -> None:
        parsed = text_format.Parse(config, ModelConfig())
        monkeypatch.setattr("benchmarks.service.model_config", lambda url: parsed)

    return say


def write_manifest(repository: Path, artifact: str, entry: dict) -> None:
    (repository / "dim/1").mkdir(parents=True)
    (repository / "dim/1/manifest.json").write_text(json.dumps({artifact: entry}))


@pytest.mark.parametrize(
    ("setting", "entry", "precision"),
    # As in tests/server/test_model.py.
    [
        ("auto", {"bf16": {"pictures": 5}}, NATIVE),
        ("auto", {"bf16": "not equal to the network"}, "fp32"),
        ("auto", {}, "fp32"),
        ("int8", {"bf16": "not equal to the network"}, "fp32"),
        ("fp32", {"bf16": {"pictures": 5}}, "fp32"),
        ("auto", None, NATIVE),
        ("fp32", None, "fp32"),
        ("int8", None, "int8"),
        ("auto", {"precision": "int8"}, "int8"),
    ],
)
def test_what_model_py_computes_in(
    setting: str, entry: dict | None, precision: str, configure: Callable, tmp_path: Path
) -> None:
    own = read_config(TEMPLATE, CONFIG)
    configure(with_parameters(own, engine="openvino", precision=setting))
    if entry is not None:
        write_manifest(tmp_path, "model.onnx", {"precision": "fp32", **entry})
    assert what_serves("", tmp_path) == Served("openvino", precision)
    configure(with_parameters(own, engine="cpu", precision=setting))
    assert what_serves("", tmp_path) == Served("openvino", precision)  # there is no model.mnn
    configure(with_parameters(own, engine="onnxruntime", precision=setting))
    assert what_serves("", tmp_path) == Served("onnxruntime", "fp32")


@pytest.mark.parametrize(
    ("setting", "in_bf16", "flags", "served"),
    [
        ("fp32", True, {"avx2"}, Served("mnn", "winograd")),
        ("auto", False, {"avx2"}, Served("mnn", "winograd")),
        ("fp32", True, {"avx2", "avx512f"}, Served("openvino", "fp32")),
        ("auto", False, {"bf16"}, Served("openvino", "fp32")),
    ],
)
def test_mnn_serves_fp32_on_avx2(
    setting: str,
    in_bf16: bool,
    flags: set[str],
    served: Served,
    configure: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.service.instructions", lambda: flags)
    configure(with_parameters(read_config(TEMPLATE, CONFIG), engine="cpu", precision=setting))
    files = {"model.onnx": "…", "model.mnn": "…"}
    bf16 = {"pictures": 5} if in_bf16 else "not equal"
    write_manifest(tmp_path, "model.onnx", {"precision": "fp32", "files": files, "bf16": bf16})
    assert what_serves("", tmp_path) == served


def test_what_openvinos_native_backend_computes_in(configure: Callable, tmp_path: Path) -> None:
    configure(read_config(TEMPLATE, "configs/openvino.pbtxt"))
    assert what_serves("") == what_serves("", tmp_path) == Served("openvino", NATIVE)
    write_manifest(tmp_path, "model.onnx", {"precision": "fp32", "bf16": "not equal"})
    assert what_serves("", tmp_path) == Served("openvino", NATIVE)  # it does not ask


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_a_tensorrt_engine_computes_in(
    precision: str, configure: Callable, tmp_path: Path
) -> None:
    configure(read_config(TEMPLATE, "configs/tensorrt.pbtxt"))
    for nothing in (None, tmp_path):
        with pytest.raises(ExportError, match="TensorRT engine and does not report its precision"):
            what_serves("gpu:8001", nothing)
    write_manifest(tmp_path, "model.plan", {"precision": precision})
    assert what_serves("gpu:8001", tmp_path) == Served("tensorrt", precision)
