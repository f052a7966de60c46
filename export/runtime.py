"""An ONNX file run on the CPU, by OpenVINO or ONNX Runtime."""

from pathlib import Path

from export.parity import Matte

OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16"}


def onnx_matte(onnx: Path, target: str, precision: str = "fp32") -> Matte:
    """Return an ONNX file as the wire contract's function, run by the target's runtime.

    `precision` is what OpenVINO computes an FP32 graph in, "fp32" or "bf16"; ONNX Runtime computes
    every graph as it is.
    """
    if target == "openvino":
        import openvino

        hint = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision]}
        compiled = openvino.compile_model(onnx, "CPU", hint)
        return lambda image, trimap: compiled({"image": image, "trimap": trimap})["alpha"]
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return lambda image, trimap: session.run(["alpha"], {"image": image, "trimap": trimap})[0]


def openvino_precision() -> str:
    """Return what OpenVINO computes an FP32 graph in on this processor if it is not told.

    "bf16" where the processor has such products, which are twice as fast, else "fp32".
    """
    import openvino

    hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if hint == openvino.Type.bf16 else "fp32"
