"""The server that is measured, and the pictures it is sent."""

import argparse
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import ModelConfig

from benchmarks.measure import instructions
from client.connection import MODEL, Matte
from client.errors import ServerUnavailableError
from export.errors import ExportError
from export.export import ARTIFACTS, CPU
from export.manifest import MNN_MODEL, newest_version, read_manifest
from export.parity import read_pictures
from export.runtime import openvino_precision
from matting.images import read_image
from server.launcher import Server, launch

DEMO = Path(__file__).parents[1] / "demo"


def add_repository_argument(parser: argparse.ArgumentParser) -> None:
    """Add which model is measured."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository to measure (%(default)s)",
    )


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model is measured, and where it is served."""
    add_repository_argument(parser)
    parser.add_argument(
        "--url",
        metavar="HOST:PORT",
        help="gRPC address of an otherwise idle server that serves it (default: start one)",
    )


@contextmanager
def serving(repository: Path, url: str | None) -> Iterator[str]:
    """Return the address of a server; where none is given, one runs for as long as the context."""
    if url:
        check_server(url)
        yield url
    else:
        with launch(repository) as server:
            yield server.grpc_url


def check_server(url: str) -> None:
    """Raise an error unless a server at `url` has the model ready."""
    with Matte(url) as connection:
        if not connection.is_ready():
            raise ServerUnavailableError(f"no server at {url} that has the model {MODEL!r} ready")


def peak_memory(repository: Path, work: Callable[[str], object]) -> tuple[float, float]:
    """Return what a server needs, in GiB, once it is ready and at most during some work.

    `work` is given the server's address. The server is a new one, since none gives back what it has
    once needed. Of each of its processes the largest resident set counts.
    """
    with launch(repository) as server:
        ready = _largest_resident(server.process.pid)
        work(server.grpc_url)
        return ready, _largest_resident(server.process.pid)


def _largest_resident(pid: int) -> float:
    server = psutil.Process(pid)
    kilobytes = 0
    for process in (server, *server.children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"VmHWM:\s*(\d+) kB", status):  # not of one that has ended
            kilobytes += int(found[1])
    return kilobytes / 2**20


def answered(server: Server) -> int:
    """Return how many requests a server has answered so far, once that is at rest."""
    counts = [-1, -2]
    with InferenceServerClient(server.grpc_url) as client:
        while counts[-1] != counts[-2]:
            time.sleep(0.05)
            (statistics,) = client.get_inference_statistics(MODEL).model_stats
            counts.append(statistics.inference_stats.success.count)
    return counts[-1]


@dataclass(frozen=True)
class Served:
    """What runs the model: "openvino", "mnn", "onnxruntime" or "tensorrt", and what it computes in.

    That is "winograd" with MNN, see `export.tolerance`, and "fp32" with a graph in FP16, whose
    convolutions processors compute in FP32.
    """

    engine: str
    precision: str


def what_serves(url: str, repository: Path | None = None) -> Served:
    """Ask a server on this machine what runs the model, and the manifest of its repository.

    Without a repository it is taken for an export that is equal in bf16 and by Winograd.

    Raises
    ------
    ExportError
        It runs a TensorRT engine, whose precision only a manifest knows, and there is none.
    """
    config = model_config(url)
    engine, said = config.backend, "auto"
    if engine == "python":
        engine, said = (config.parameters[key].string_value for key in ("engine", "precision"))
    entries = read_manifest(newest_version(repository / MODEL)) if repository else {}
    entry = entries.get(ARTIFACTS.get(engine), {})
    if engine == "tensorrt":
        if not entry:
            raise ExportError(
                f"{url} runs a TensorRT engine and does not report its precision: give the "
                "--repository with its manifest.json, or, for `benchmarks parity`, --precision"
            )
        return Served(engine, entry["precision"])
    if engine not in (CPU, "openvino"):
        return Served(engine, "fp32")
    if entry.get("precision", said) == "int8":
        return Served("openvino", "int8")
    # As model.py decides; OpenVINO's native backend does not ask.
    is_equal_in_bf16 = not entry or isinstance(entry.get("bf16"), dict)
    in_fp32 = config.backend == "python" and (said == "fp32" or not is_equal_in_bf16)
    precision = "fp32" if in_fp32 else openvino_precision()
    has_mnn = repository is None or MNN_MODEL in entry.get("files", ())
    on_avx2 = {"avx2", "avx512f"} & instructions() == {"avx2"}
    if engine == CPU and precision == "fp32" and has_mnn and on_avx2:
        return Served("mnn", "winograd")
    return Served("openvino", precision)


def model_config(url: str) -> ModelConfig:
    """Return the model's configuration, as a server has read it."""
    with InferenceServerClient(url) as client:
        return client.get_model_config(MODEL).config


def max_pixels(url: str) -> float:
    """Return the largest picture that a server takes whole, H x W."""
    return float(model_config(url).parameters["max_pixels"].string_value or "inf")


def size(text: str) -> tuple[int, int]:
    """Read "HxW" from a command line."""
    if found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.lower()):
        return int(found[1]), int(found[2])
    raise argparse.ArgumentTypeError(f"{text} is not HxW, such as 512x512")


def picture_of(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the project's own picture, stretched to a size: image H×W×3 and trimap H×W, uint8."""
    picture = next(read_pictures())
    image = cv2.resize(picture.image, (width, height), interpolation=cv2.INTER_CUBIC)
    return image, cv2.resize(picture.trimap, (width, height), interpolation=cv2.INTER_NEAREST)


def demo_image(name: str) -> np.ndarray:
    """Return the demo's "photo" or "background", H×W×3 uint8."""
    return read_image(DEMO / f"{name}.jpg")
