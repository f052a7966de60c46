"""The ways to run one network that are compared, each as the wire contract's function.

All of them take and give plain uint8 pixels, so that each is timed with its padding, normalisation
and copies to and from its device.
"""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import instructions
from export.engine import Profile, build_engine, engine_matte
from export.errors import ExportError
from export.export import onnx_matte
from export.parity import Matte
from train.network import DeepImageMatting
from train.predict import predict_alpha

REFERENCE = "PyTorch FP32, as mmediting runs it"
NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


class SkippedError(Exception):
    """Something cannot run on this machine; the message says why."""


def torch_matte(
    network: DeepImageMatting,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    compile_mode: str | None = None,
) -> Matte:
    """Return the PyTorch network, which is copied, on a device, in a type and memory layout."""
    network = copy.deepcopy(network).to(device, dtype, memory_format=memory_format)
    network.register_forward_pre_hook(
        lambda _, inputs: tuple(x.to(dtype, memory_format=memory_format) for x in inputs)
    )
    if compile_mode:
        network.compile(mode=compile_mode, dynamic=False)

    def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        inputs = (torch.from_numpy(x).to(device).permute(0, 3, 1, 2) for x in (image, trimap))
        return predict_alpha(network, *inputs).permute(0, 2, 3, 1).cpu().numpy()

    return matte


def autocast_matte(network: DeepImageMatting) -> Matte:
    """Return the PyTorch network on the CPU in bf16, where the processor computes in it."""
    require_bf16()
    matte = torch_matte(network, memory_format=torch.channels_last)

    def in_bf16(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return matte(image, trimap)

    return in_bf16


def compiled_matte(network: DeepImageMatting) -> Matte:
    """Return the PyTorch network through torch.compile on the CPU."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise SkippedError("torch.compile needs a C++ compiler, and there is none on PATH")
    return torch_matte(network, memory_format=torch.channels_last, compile_mode="default")


def openvino_matte(onnx: Path) -> Matte:
    """Return an ONNX file run by OpenVINO in FP32."""
    try:
        return onnx_matte(onnx, "openvino")
    except ImportError:
        raise SkippedError("openvino is not installed") from None


def openvino_bf16_matte(onnx: Path) -> Matte:
    """Return an ONNX file run by OpenVINO in bf16, where the processor computes in it."""
    require_bf16()
    try:
        import openvino
    except ImportError:
        raise SkippedError("openvino is not installed") from None
    compiled = openvino.compile_model(onnx, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    return lambda image, trimap: compiled({"image": image, "trimap": trimap})["alpha"]


def tensorrt_matte(onnx: Path, largest: tuple[int, int, int]) -> Matte:
    """Build an FP16 engine of an FP16 ONNX file, tuned for its largest input N×H×W."""
    profile = Profile(best=largest, largest=largest)
    try:
        engine, _ = build_engine(onnx, "tensorrt", "fp16", profile)
        return engine_matte(engine, "tensorrt")
    except ExportError as error:
        raise SkippedError(str(error)) from error


def require_bf16() -> None:
    if not instructions() & NATIVE_BF16:
        raise SkippedError("this processor does not compute in bf16")


def require_gpu() -> None:
    if not torch.cuda.is_available():
        raise SkippedError("PyTorch finds no GPU here")


def peers(
    network: DeepImageMatting, fp32: Path, fp16: Callable[[], Path], largest: tuple[int, int, int]
) -> dict[str, Callable[[], Matte]]:
    """Return by name what opens each peer, or raises `SkippedError`; the reference is the first.

    Parameters
    ----------
    network : DeepImageMatting
    fp32 : Path
        ONNX file of the network.
    fp16 : callable
        Makes the FP16 ONNX file; called only where something can run it.
    largest : int, int, int
        The largest N, H and W that TensorRT is built for.
    """

    def on_gpu(dtype: torch.dtype, compile_mode: str | None = None) -> Matte:
        require_gpu()
        return torch_matte(network, "cuda", dtype, torch.channels_last, compile_mode)

    def tensorrt() -> Matte:
        require_gpu()
        return tensorrt_matte(fp16(), largest)

    return {
        REFERENCE: lambda: torch_matte(network),
        "PyTorch FP32, channels_last": lambda: torch_matte(
            network, memory_format=torch.channels_last
        ),
        "torch.compile FP32": lambda: compiled_matte(network),
        "PyTorch bf16 autocast": lambda: autocast_matte(network),
        "ONNX Runtime FP32": lambda: onnx_matte(fp32, "onnxruntime"),
        "OpenVINO FP32": lambda: openvino_matte(fp32),
        "OpenVINO bf16": lambda: openvino_bf16_matte(fp32),
        "PyTorch FP16 on the GPU": lambda: on_gpu(torch.float16),
        "torch.compile FP16 on the GPU": lambda: on_gpu(torch.float16, "max-autotune"),
        "TensorRT FP16": tensorrt,
    }
