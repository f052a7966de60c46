"""TensorRT engines, through Polygraphy: TensorRT 8.6, 10 and 11, and TensorRT for RTX.

Precision is in the ONNX graph. From version 10 on the network is strongly typed and the builder
keeps to it; 8.6 knows no strong typing for this and needs its FP16 flag besides, see `in_half`.

TensorRT needs the GPU that will run the engine. TensorRT for RTX builds for a named compute
capability on any machine; here it proves, without a GPU, that NVIDIA's parser takes the graph.

Needs no PyTorch, and no newer Python than 3.9, for the sake of `export.plan`.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib
import os
import subprocess
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError, one_line
from matting.files import check_folder

if TYPE_CHECKING:
    from export.parity import Matting

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "run inside NVIDIA's container or `pip install tensorrt`",
    "tensorrt-rtx": "`pip install -e '.[tensorrt-rtx]'`",
}
CAPABILITY = "8.9"
"""The compute capability that TensorRT for RTX builds for unless told otherwise."""


@dataclass(frozen=True)
class Profile:
    """Smallest, best tuned and largest input, each N×H×W."""

    smallest: tuple[int, int, int] = (1, 1, 1)
    best: tuple[int, int, int] = (1, 1024, 1024)
    largest: tuple[int, int, int] = (8, 1088, 1920)

    def __post_init__(self) -> None:
        sizes = (self.smallest, self.best, self.largest)
        if np.min(sizes) < 1 or (np.diff(sizes, axis=0) < 0).any():
            raise ExportError(
                "smallest, best and largest input are {}, {} and {}: expected N, H and W from 1 "
                "that never decrease".format(*map(as_text, sizes))
            )

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise an `ExportError` where an engine would not take a picture, H×W."""
        sizes = (self.smallest[1:], shape, self.largest[1:])
        if (np.diff(sizes, axis=0) < 0).any():
            smallest, its_own, largest = map(as_text, sizes)
            raise ExportError(
                f"{name}, on which the engine would be compared, is {its_own}: expected "
                f"{smallest} (--smallest) to {largest} (--largest), or other pictures"
            )


@dataclass(frozen=True)
class Gpu:
    """The graphics processor of this machine, as `nvidia-smi` names it."""

    name: str
    compute_capability: str
    driver: str


def find_gpu() -> Gpu:
    """Return the GPU of this machine that TensorRT takes.

    Raises
    ------
    ExportError
        There is none.
    """
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]

    def ask(*options: str) -> list[str]:
        done = subprocess.run([*query, *options], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    try:
        gpus = ask()
        if len(gpus) > 1 or "CUDA_VISIBLE_DEVICES" in os.environ:
            gpus = ask(f"--id={first_device()}")
        return Gpu(*(part.strip() for part in gpus[0].split(",")))
    except (OSError, subprocess.CalledProcessError, IndexError, TypeError):
        raise ExportError(
            "no NVIDIA GPU here (nvidia-smi or CUDA found none), and TensorRT builds an engine on "
            "the GPU that runs it: export there, or use --target cpu"
        ) from None


def first_device() -> str:
    """Return the PCI address of CUDA's device 0, which is TensorRT's; `OSError` without one.

    CUDA puts the fastest first, or what CUDA_VISIBLE_DEVICES names; nvidia-smi does neither.
    """
    cuda = ctypes.CDLL("libcuda.so.1")
    device, address = ctypes.c_int(), ctypes.create_string_buffer(32)
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetPCIBusId(address, len(address), device)
    ):
        raise OSError("CUDA finds no GPU")
    return address.value.decode()


def import_tensorrt(target: str) -> ModuleType:
    """Import TensorRT or TensorRT for RTX, and tell Polygraphy which of them to use."""
    try:
        module = importlib.import_module(MODULES[target])
        polygraphy_config = importlib.import_module("polygraphy.config")
    except ImportError as error:
        raise ExportError(f"--target {target}: {error}; {INSTALL[target]}") from None
    polygraphy_config.USE_TENSORRT_RTX = target == "tensorrt-rtx"
    logger = importlib.import_module("polygraphy.logger").G_LOGGER
    logger.module_severity = logger.ERROR  # what NVIDIA's parser says of a node, say
    return module


def check_machine(target: str, capability: str) -> ModuleType:
    """Return TensorRT's module if an engine can be built here; `ExportError` if not."""
    tensorrt = import_tensorrt(target)
    if target == "tensorrt":
        check_builder(tensorrt, find_gpu())
        return tensorrt
    names = (name for name in dir(tensorrt.ComputeCapability) if name.startswith("SM"))
    known = list(map(str, sorted(int(name[2:]) / 10 for name in names)))
    if capability not in known:
        raise ExportError(
            f"compute capability is {capability!r}; {target} {tensorrt.__version__} builds for "
            + ", ".join(known)
        )
    return tensorrt


def check_builder(tensorrt: ModuleType, gpu: Gpu) -> None:
    """Raise an `ExportError` where TensorRT cannot use the GPU of this machine."""
    from polygraphy.backend.trt import get_trt_logger

    try:
        tensorrt.Builder(get_trt_logger())
    except TypeError:  # all that TensorRT's binding says of it
        raise ExportError(
            f"TensorRT {tensorrt.__version__} finds no GPU that it can use: the driver "
            f"({gpu.driver}) may be too old for its CUDA; update it or take an older TensorRT"
        ) from None


def build_engine(
    onnx: Path,
    target: str,
    precision: str,
    profile: Profile,
    *,
    capability: str = CAPABILITY,
    timing_cache: Path | None = None,
) -> tuple[bytes, dict[str, object]]:
    """Build an engine of an ONNX file.

    Parameters
    ----------
    onnx : Path
        Graph with the wire contract; its weights may lie beside it.
    target : "tensorrt" or "tensorrt-rtx"
    precision : "fp32" or "fp16"
        What the graph computes in.
    capability : str
        For TensorRT for RTX: the compute capability to build for, such as "8.9".
    timing_cache : Path, optional
        For TensorRT: kernel timings, read if there and written; the next build is faster.

    Returns
    -------
    bytes, dict
        The engine, and what a manifest should say of it.

    Raises
    ------
    ExportError
        TensorRT or a GPU is missing, or the parser or builder refused the graph.
    OSError
        The timing cache cannot be written.
    """
    tensorrt = check_machine(target, capability)
    # After the choice of the module, which Polygraphy looks up when it is imported.
    from polygraphy.backend.trt import engine_bytes_from_network, network_from_onnx_path
    from polygraphy.exception import PolygraphyException

    for_rtx = target == "tensorrt-rtx"
    major = int(tensorrt.__version__.split(".")[0])
    strongly_typed = for_rtx or major >= 10
    fp16 = not strongly_typed and precision == "fp16"
    facts: dict[str, object] = {
        "version": tensorrt.__version__,
        "profile": asdict(profile),
        "flags": ["STRONGLY_TYPED"]
        if strongly_typed
        else ["FP16", "PREFER_PRECISION_CONSTRAINTS"] * fp16,
    }
    try:
        if for_rtx:
            facts["compute_capability"] = capability
            config = rtx_config(profile, capability)
        else:
            facts["gpu"] = asdict(find_gpu())
            config = gpu_config(profile, tensorrt, fp16, timing_cache)
        builder, network, parser = network_from_onnx_path(str(onnx), strongly_typed=strongly_typed)
        take_sizes_after_casts(network, tensorrt)
        if fp16:
            in_half(network, tensorrt)
        engine = engine_bytes_from_network(
            (builder, network, parser),
            config,
            save_timing_cache=str(timing_cache) if timing_cache and not for_rtx else None,
        )
        return bytes(engine), facts
    except PolygraphyException as error:
        raise ExportError(f"{target} refused the graph: {one_line(error)}") from error


def take_sizes_after_casts(network: Any, tensorrt: ModuleType) -> None:
    """Take the sizes of a network's inputs from what they are cast to.

    The graph asks the uint8 inputs themselves, and NVIDIA says that nothing but a cast may read
    those (TensorRT's issue 3985; its operators' pages give Shape no uint8).
    """
    kinds, layers = tensorrt.LayerType, list(network)
    casts = {x.get_input(0).name: x.get_output(0) for x in layers if x.type == kinds.CAST}
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    for layer in (x for x in layers if x.type == kinds.SHAPE):
        if (name := layer.get_input(0).name) in inputs & casts.keys():
            layer.set_input(0, casts[name])


def in_half(network: Any, tensorrt: ModuleType) -> None:
    """Have convolutions compute in FP16 and round to it, which 8.6's FP16 flag merely allows.

    `export.served` finds where a maximum was by `Equal`. Rounded before, values and their maximum
    are equal in whatever type the builder lets the rest compute. Not rounded, a value in FP32 is
    not equal to a maximum that was taken in FP16.
    """
    for layer in network:
        if layer.type == tensorrt.LayerType.CONVOLUTION:
            layer.precision = tensorrt.float16
            layer.set_output_type(0, tensorrt.float16)


def rtx_config(profile: Profile, capability: str) -> object:
    """Return what TensorRT for RTX builds for, as Polygraphy says it."""
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    version = tuple(map(int, capability.split(".")))
    return CreateConfigRTX(profiles=[input_shapes(profile)], compute_capabilities=[version])


def gpu_config(
    profile: Profile, tensorrt: ModuleType, fp16: bool, timing_cache: Path | None
) -> object:
    """Return how TensorRT builds for the GPU of this machine, as Polygraphy says it."""
    from polygraphy.backend.trt import CreateConfig

    sources = None
    if int(tensorrt.__version__.split(".")[0]) < 10:
        # As 10 does by itself: without cuBLAS and cuDNN, which need not be there.
        known = tensorrt.TacticSource
        sources = [known.EDGE_MASK_CONVOLUTIONS, known.JIT_CONVOLUTIONS]
    if timing_cache:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        check_file(timing_cache)
    return CreateConfig(
        profiles=[input_shapes(profile)],
        fp16=fp16,
        precision_constraints="prefer" if fp16 else None,
        tactic_sources=sources,
        load_timing_cache=str(timing_cache) if timing_cache and timing_cache.exists() else None,
    )


def check_file(path: Path) -> None:
    """Raise the `OSError` of writing a file: before minutes of work, not after."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_folder(path.parent)


def input_shapes(profile: Profile) -> object:
    """Return a profile as Polygraphy says it."""
    from polygraphy.backend.trt import Profile as Shapes

    shapes = Shapes()
    for name, channels in (("image", 3), ("trimap", 1)):
        sizes = (profile.smallest, profile.best, profile.largest)
        shapes.add(name, *((*size, channels) for size in sizes))
    return shapes


def engine_matte(engine: bytes, target: str) -> Matting:
    """Return an engine as the wire contract's function; its GPU memory is freed with it.

    Raises
    ------
    ExportError
        It cannot run here, which takes the engine's GPU, or refuses the inputs' sizes.
    """
    import_tensorrt(target)
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner
    from polygraphy.exception import PolygraphyException

    runner = TrtRunner(EngineFromBytes(engine))
    try:
        runner.activate()
    # OSError: no CUDA runtime; TypeError: a driver too old for it.
    except (PolygraphyException, OSError, TypeError) as error:
        raise ExportError(f"the engine cannot run here: {one_line(error)}") from error

    def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        # The runner answers with its own buffer, which the next call overwrites.
        try:
            return runner.infer({"image": image, "trimap": trimap})["alpha"].copy()
        except PolygraphyException as error:
            where = as_text(image.shape)
            raise ExportError(f"the engine fails on {where}: {one_line(error)}") from error

    weakref.finalize(matte, runner.deactivate)
    return matte


def size(text: str) -> tuple[int, int, int]:
    """Read "NxHxW"."""
    n, h, w = (int(part) for part in text.lower().split("x"))
    return n, h, w


def as_text(size: tuple[int, ...]) -> str:
    """Write 1x2x3."""
    return "x".join(map(str, size))


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Add what an engine is built for."""
    standard = Profile()
    for name, meaning in (
        ("smallest", "smallest input that the engine takes"),
        ("best", "input that the engine is optimised for"),
        ("largest", "largest input that the engine takes"),
    ):
        value = getattr(standard, name)
        parser.add_argument(
            f"--{name}",
            type=size,
            default=value,
            metavar="NxHxW",
            help=f"{meaning} ({as_text(value)})",
        )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="tensorrt: cache of kernel timings, read if it exists and updated for faster builds",
    )
    parser.add_argument(
        "--capability",
        default=CAPABILITY,
        help="tensorrt-rtx: compute capability of the GPU to build for (%(default)s)",
    )
