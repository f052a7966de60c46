"""An ONNX file run on the CPU, by OpenVINO or ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from export.parity import Matting

if TYPE_CHECKING:
    import openvino


def onnx_matte(onnx: Path, target: str, precision: str = "fp32") -> Matting:
    """Return an ONNX file as the wire contract's function, run by the target's runtime.

    `precision` is how OpenVINO computes a graph, see `compile_openvino`; ONNX Runtime computes
    every graph as it is.
    """
    if target == "openvino":
        compiled = compile_openvino(onnx, precision)
        return lambda image, trimap: compiled({"image": image, "trimap": trimap})["alpha"]
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return lambda image, trimap: session.run(["alpha"], {"image": image, "trimap": trimap})[0]


def compile_openvino(onnx: Path, precision: str) -> "openvino.CompiledModel":
    """Compile a graph for the CPU: one in FP32, to be computed in "fp32" or "bf16", or in "int8".

    What is not quantised in the latter is computed in `openvino_precision`.
    """
    import openvino

    hint = openvino_precision() if precision == "int8" else precision
    settings = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[hint]}
    return openvino.compile_model(onnx, "CPU", settings)


def openvino_precision() -> str:
    """Return what OpenVINO computes an FP32 graph in on this processor if it is not told.

    "bf16" where the processor has such products, which are twice as fast, else "fp32".
    """
    import openvino

    hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if hint == openvino.Type.bf16 else "fp32"
