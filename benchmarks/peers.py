"""The ways to run one network that are compared, each as the wire contract's function.

All of them take and give plain uint8 pixels, so that each is timed with its padding, normalisation
and copies to and from its device.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import instructions
from export.engine import Profile, build_engine, engine_matte
from export.errors import ExportError
from export.export import write_onnx
from export.manifest import MNN_MODEL, WEIGHTS
from export.mnn import write_mnn
from export.parity import Matting, matte_with
from export.runtime import mnn_matte, onnx_matte, onnxruntime_matte
from train.network import DeepImageMatting

REFERENCE = "PyTorch FP32, as mmediting runs it"
NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


class SkippedError(Exception):
    """Something cannot run on this machine; the message says why."""


def on_device(
    network: DeepImageMatting,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> DeepImageMatting:
    """Return a copy of the network on a device, which turns inputs into its type and layout."""
    network = copy.deepcopy(network).to(device, dtype, memory_format=memory_format)
    network.register_forward_pre_hook(
        lambda _, inputs: tuple(x.to(dtype, memory_format=memory_format) for x in inputs)
    )
    return network


def first_line(error: Exception) -> str:
    """Return what matters of an error's text."""
    return str(error).strip().partition("\n")[0]


def autocast_matte(network: DeepImageMatting) -> Matting:
    """Return the PyTorch network on the CPU in bf16, where the processor computes in it."""
    require_bf16()
    matte = matte_with(on_device(network, memory_format=torch.channels_last))

    def in_bf16(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return matte(image, trimap)

    return in_bf16


def compiled_matte(network: DeepImageMatting) -> Matting:
    """Return the PyTorch network through torch.compile on the CPU."""
    require_compiler("cpu")
    return matte_with(on_device(network, memory_format=torch.channels_last), "default")


def gpu_matte(network: DeepImageMatting, compile_mode: str | None = None) -> Matting:
    """Return the PyTorch network in FP16 on the GPU, through torch.compile if it has a mode."""
    require_gpu()
    if compile_mode:
        require_compiler("cuda")
    half = on_device(network, "cuda", torch.float16, torch.channels_last)
    matte = matte_with(half, compile_mode)

    def with_fastest_kernels(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            return matte(image, trimap)

    return with_fastest_kernels


def converted_mnn_matte(onnx: Path, path: Path) -> Matting:
    """Convert an FP32 graph for MNN, into `path`, and return that."""
    try:
        write_mnn(onnx, path)
    except ExportError as error:
        raise SkippedError(str(error)) from error
    return mnn_matte(path)


def openvino_bf16_matte(onnx: Path) -> Matting:
    """Return an FP32 graph run by OpenVINO in bf16, where the processor computes in it."""
    require_bf16()
    return onnx_matte(onnx, "openvino", "bf16")


def onnxruntime_cuda_matte(onnx: Path) -> Matting:
    """Return a graph run by ONNX Runtime on the GPU, where its CUDA build is installed."""
    try:
        return onnxruntime_matte(onnx, "CUDAExecutionProvider")
    except ExportError as error:
        raise SkippedError(f"{error}: pip install onnxruntime-gpu") from error


def tensorrt_matte(onnx: Path, largest: tuple[int, int, int]) -> Matting:
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


def require_compiler(device: str) -> None:
    try:
        torch.compile(torch.relu)(torch.zeros(1, device=device))
    except RuntimeError as error:
        raise SkippedError(f"torch.compile finds no compiler ({first_line(error)})") from error


def open_peers(
    network: DeepImageMatting,
    version: Path,
    scratch: Path,
    largest: tuple[int, int],
    quick: bool = False,
) -> tuple[dict[str, Matting], dict[str, str]]:
    """Make every peer that this machine can run ready.

    Parameters
    ----------
    network : DeepImageMatting
    version : Path
        Version folder of a model repository with the same network.
    scratch : Path
        Folder for temporary files.
    largest : int, int
        The largest H and W that TensorRT is built for.
    quick : bool
        Leave out what takes a minute to start.

    Returns
    -------
    dict, dict
        The peers, and why the others cannot run, by name; the reference is the first peer.
    """
    (scratch / "fp32").mkdir()
    fp32 = write_onnx(network, version / WEIGHTS, "fp32", scratch / "fp32")

    def compiled() -> Matting:
        if quick:
            raise SkippedError("left out by --quick")
        return compiled_matte(network)

    def in_fp16(start: Callable[[Path], Matting]) -> Matting:
        require_gpu()
        folder = Path(tempfile.mkdtemp(dir=scratch))
        return start(write_onnx(network, version / WEIGHTS, "fp16", folder))

    starts: dict[str, Callable[[], Matting]] = {
        REFERENCE: lambda: matte_with(on_device(network)),
        "PyTorch FP32, channels_last": lambda: matte_with(
            on_device(network, memory_format=torch.channels_last)
        ),
        "torch.compile FP32": compiled,
        "PyTorch bf16 autocast": lambda: autocast_matte(network),
        "ONNX Runtime FP32": lambda: onnx_matte(fp32, "onnxruntime"),
        "OpenVINO FP32": lambda: onnx_matte(fp32, "openvino"),
        "OpenVINO bf16": lambda: openvino_bf16_matte(fp32),
        "MNN FP32": lambda: converted_mnn_matte(fp32, scratch / MNN_MODEL),
        "PyTorch FP16 on the GPU": lambda: gpu_matte(network),
        "torch.compile FP16 on the GPU": lambda: gpu_matte(network, "max-autotune"),
        "ONNX Runtime FP16 on the GPU": lambda: in_fp16(onnxruntime_cuda_matte),
        "TensorRT FP16": lambda: in_fp16(lambda fp16: tensorrt_matte(fp16, (1, *largest))),
    }
    ready, skipped = {}, {}
    for name, start in starts.items():
        try:
            ready[name] = start()
        except SkippedError as error:
            skipped[name] = str(error)
    return ready, skipped
