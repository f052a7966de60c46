"""TensorRT engines, through Polygraphy: TensorRT 8.6, 10 and 11, and TensorRT for RTX.

Precision is in the ONNX graph. From version 10 on the network is strongly typed and the builder
keeps to it; 8.6 knows no strong typing for this and needs its FP16 flag besides.

TensorRT needs the GPU that will run the engine. TensorRT for RTX builds for a named compute
capability on any machine; here it proves, without a GPU, that NVIDIA's parser takes the graph.
"""

import importlib
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from export.errors import ExportError
from export.parity import Matte

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "run inside NVIDIA's container or `pip install tensorrt`",
    "tensorrt-rtx": "`pip install -e '.[tensorrt-rtx]'`",
}


@dataclass(frozen=True)
class Profile:
    """Smallest, best tuned and largest input, each N×H×W."""

    smallest: tuple[int, int, int] = (1, 1, 1)
    best: tuple[int, int, int] = (1, 1024, 1024)
    largest: tuple[int, int, int] = (8, 1088, 1920)


@dataclass(frozen=True)
class Gpu:
    """The graphics processor of this machine, as `nvidia-smi` names it."""

    name: str
    compute_capability: str
    driver: str


def find_gpu() -> Gpu:
    """Return the first GPU of this machine.

    Raises
    ------
    ExportError
        There is none.
    """
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return Gpu(*(part.strip() for part in answer.splitlines()[0].split(",")))
    except (OSError, subprocess.CalledProcessError, IndexError, TypeError):
        raise ExportError(
            "no NVIDIA GPU here (nvidia-smi found none), and TensorRT builds an engine on the GPU "
            "that runs it: export there, or use --target onnxruntime for the CPU"
        ) from None


def import_tensorrt(target: str) -> ModuleType:
    """Import TensorRT or TensorRT for RTX, and tell Polygraphy which of them to use."""
    try:
        module = importlib.import_module(MODULES[target])
        polygraphy_config = importlib.import_module("polygraphy.config")
    except ImportError as error:
        raise ExportError(f"--target {target}: {error}; {INSTALL[target]}") from None
    polygraphy_config.USE_TENSORRT_RTX = target == "tensorrt-rtx"
    return module


def build_engine(
    onnx: Path,
    target: str,
    precision: str,
    profile: Profile,
    *,
    capability: str = "8.9",
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
    """
    tensorrt = import_tensorrt(target)
    # After the choice of the module, which Polygraphy looks up when it is imported.
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import (
        CreateConfig,
        engine_bytes_from_network,
        network_from_onnx_path,
    )
    from polygraphy.backend.trt import Profile as Shapes
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.ERROR
    strongly_typed = target == "tensorrt-rtx" or int(tensorrt.__version__.split(".")[0]) >= 10
    shapes = Shapes()
    for name, channels in (("image", 3), ("trimap", 1)):
        sizes = (profile.smallest, profile.best, profile.largest)
        shapes.add(name, *((*size, channels) for size in sizes))
    facts: dict[str, object] = {
        "version": tensorrt.__version__,
        "profile": asdict(profile),
        "flags": ["STRONGLY_TYPED"] if strongly_typed else ["FP16"] * (precision == "fp16"),
    }
    if target == "tensorrt-rtx":
        facts["compute_capability"] = capability
        versions = [tuple(map(int, capability.split(".")))]
        config = CreateConfigRTX(profiles=[shapes], compute_capabilities=versions)
    else:
        facts["gpu"] = asdict(find_gpu())
        known = timing_cache and timing_cache.exists()
        config = CreateConfig(
            profiles=[shapes],
            fp16=precision == "fp16" and not strongly_typed,
            load_timing_cache=str(timing_cache) if known else None,
        )
    try:
        engine = engine_bytes_from_network(
            network_from_onnx_path(str(onnx), strongly_typed=strongly_typed),
            config,
            save_timing_cache=str(timing_cache) if timing_cache else None,
        )
        return bytes(engine), facts
    except PolygraphyException as error:
        raise ExportError(f"{target} refused the graph: {error}") from error


def engine_matte(engine: bytes, target: str) -> Matte:
    """Return an engine as the wire contract's function; needs the engine's GPU."""
    import_tensorrt(target)
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    runner = TrtRunner(EngineFromBytes(engine))
    runner.activate()

    def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        return runner.infer({"image": image, "trimap": trimap})["alpha"]

    return matte
