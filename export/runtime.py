"""An ONNX file run on the CPU, by OpenVINO or ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from export.parity import Matte

if TYPE_CHECKING:
    import openvino


def onnx_matte(onnx: Path, target: str, precision: str = "fp32") -> Matte:
    """Return an ONNX file as the wire contract's function, run by the target's runtime.

    `precision` is what OpenVINO computes an FP32 graph in, "fp32" or "bf16"; ONNX Runtime computes
    every graph as it is.
    """
    if target == "openvino":
        compiled = compile_openvino(onnx, precision)
        return lambda image, trimap: compiled({"image": image, "trimap": trimap})["alpha"]
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return lambda image, trimap: session.run(["alpha"], {"image": image, "trimap": trimap})[0]


def compile_openvino(onnx: Path, precision: str) -> "openvino.CompiledModel":
    """Compile an FP32 graph for the CPU, to be computed in "fp32" or "bf16"."""
    import openvino

    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    return openvino.compile_model(onnx, "CPU", {"INFERENCE_PRECISION_HINT": hint})


def openvino_precision() -> str:
    """Return what OpenVINO computes an FP32 graph in on this processor if it is not told.

    "bf16" where the processor has such products, which are twice as fast, else "fp32".
    """
    import openvino

    hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if hint == openvino.Type.bf16 else "fp32"
