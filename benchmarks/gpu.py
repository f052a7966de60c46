"""TensorRT beside PyTorch on this machine's GPU, by size and batch, and its share of the ceiling.

Pictures and answers stay on the GPU; times are between CUDA's events. TensorRT runs in a Python of
its own, which may be older (`--tensorrt-python`), and is compared with the network on pictures.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.ceiling import flops, matrix_rate
from benchmarks.engine import RECORD, add_shapes_argument, after_warmup, example
from benchmarks.measure import Samples, median, percentiles
from benchmarks.peers import first_line, on_device
from benchmarks.tables import Row, Section
from export.engine import as_text, find_gpu
from export.errors import ExportError
from export.export import write_onnx
from export.parity import (
    Picture,
    add_pictures_argument,
    compare,
    judge,
    read_pictures,
    read_reference,
    save_references,
)
from train.checkpoint import load_checkpoint
from train.network import DeepImageMatting
from train.predict import predict_alpha

QUICK = "one picture of 64x64, no torch.compile"
EXAMPLES = """examples:
  python -m benchmarks gpu model_repository/dim/1/weights.safetensors
  python -m benchmarks gpu dim_stage3.pth --tensorrt-python /opt/trt86/bin/trt-python
"""
TENSORRT = "TensorRT FP16"
AS_GRAPH = "TensorRT FP16, as a CUDA graph"
SLOWEST = 12
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Peer:
    """A way that PyTorch runs the network."""

    dtype: torch.dtype
    memory_format: torch.memory_format
    tf32: bool = False
    compile_mode: str | None = None


BASE = "PyTorch FP32"
"""What the others are held to."""
PEERS = {
    BASE: Peer(torch.float32, torch.contiguous_format),
    "PyTorch TF32": Peer(torch.float32, torch.contiguous_format, tf32=True),
    "PyTorch TF32, channels_last": Peer(torch.float32, torch.channels_last, tf32=True),
    "PyTorch FP16, channels_last": Peer(torch.float16, torch.channels_last),
    "torch.compile FP16": Peer(torch.float16, torch.channels_last, compile_mode="max-autotune"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    parser.add_argument("weights", type=Path, help="checkpoint: ours or mmediting's .pth")
    add_pictures_argument(parser)
    add_shapes_argument(parser)
    add_python_argument(parser)


def add_python_argument(parser: argparse.ArgumentParser) -> None:
    """Add where TensorRT is."""
    parser.add_argument(
        "--tensorrt-python",
        default=sys.executable,
        metavar="FILE",
        help="Python with TensorRT, NumPy and Polygraphy, for `gpu` (default: this one)",
    )


def measure(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield a result that grows: every way's milliseconds by shape, and how equal TensorRT is.

    What takes longest, torch.compile, comes last.
    """
    find_gpu()
    if not torch.cuda.is_available():
        raise ExportError(f"PyTorch {torch.__version__} finds no GPU: install its CUDA build")
    shapes = [(1, 64, 64)] if options.quick else options.shapes
    network = load_checkpoint(options.weights)
    pictures = list(read_pictures(options.data))[: 1 if options.quick else None]
    result = {
        "torch": f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}",
        "matrix_rate": matrix_rate("fp16", "cuda"),
        "flops": {as_text(shape): shape[0] * flops(network, *shape[1:]) for shape in shapes},
        "ms": {name: {} for name in (*PEERS, TENSORRT, AS_GRAPH)},
        "skipped": {},
        "unfinished": True,
    }
    try:
        add_engine(result, run_tensorrt(options, network, pictures, shapes))
    except ExportError as error:
        result["skipped"][TENSORRT] = first_line(error)
    except RuntimeError as error:  # PyTorch's exporter, which says its reason one below
        result["skipped"][TENSORRT] = first_line(error.__cause__ or error)
    yield result
    for name, peer in PEERS.items():
        if options.quick and peer.compile_mode:
            result["skipped"][name] = "left out by --quick"
            continue
        for shape in shapes:
            add_peer(result, name, network, shape)
            yield result
    result["matrix_rate"] = max(result["matrix_rate"], matrix_rate("fp16", "cuda"))
    del result["unfinished"]
    yield result


def add_engine(result: dict, engine: dict) -> None:
    """Add to a result what `run_tensorrt` found."""
    for shape, ways in engine.pop("shapes").items():
        for name, way in ((TENSORRT, "ms"), (AS_GRAPH, "graph_ms")):
            if way in ways:
                result["ms"][name][shape] = ways[way]
    result["skipped"].update(engine.pop("skipped"))
    result.update(engine)


def add_peer(
    result: dict, name: str, network: DeepImageMatting, shape: tuple[int, int, int]
) -> None:
    """Add a peer's milliseconds at a shape to a result, or why there are none."""
    try:
        took = result["ms"][name][as_text(shape)] = time_peer(network, PEERS[name], shape)
        print(f"{name}, {as_text(shape)}: {median(took):.3f} ms", flush=True)
    except RuntimeError as error:  # out of memory, or no compiler
        result["skipped"][f"{name}, {as_text(shape)}"] = first_line(error)
    torch.compiler.reset()  # after eight shapes it would compile no more
    torch.cuda.empty_cache()


def time_peer(network: DeepImageMatting, peer: Peer, shape: tuple[int, int, int]) -> list[float]:
    """Return a peer's milliseconds at a shape."""
    ours = on_device(network, "cuda", peer.dtype, peer.memory_format)
    pictures = [torch.from_numpy(x).cuda().permute(0, 3, 1, 2) for x in example(shape)]
    predict = predict_alpha
    if peer.compile_mode:  # all that TensorRT's graph does, not the network alone
        predict = torch.compile(predict_alpha, mode=peer.compile_mode, dynamic=False)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=peer.tf32):
        return time_on_gpu(lambda: predict(ours, *pictures))


def time_on_gpu(launch: Callable[[], object]) -> list[float]:
    """Return the milliseconds of launches after a warm-up, between events on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed() -> float:
        start.record()
        launch()
        end.record()
        end.synchronize()
        return round(start.elapsed_time(end), 4)

    return after_warmup(timed)


def run_tensorrt(
    options: argparse.Namespace,
    network: DeepImageMatting,
    pictures: list[Picture],
    shapes: list[tuple[int, int, int]],
) -> dict:
    """Return what `benchmarks.engine` measures in TensorRT's Python, and the engine's parity.

    Raises
    ------
    ExportError
        There is no such Python, TensorRT or GPU, or TensorRT refused the graph.
    """
    python = shutil.which(options.tensorrt_python)
    if not python:
        raise ExportError(f"--tensorrt-python {options.tensorrt_python}: no such program")
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        onnx = write_onnx(network, options.weights, "fp16", Path(scratch))
        save_references(network, pictures, Path(scratch) / "pictures")
        references = sorted((Path(scratch) / "pictures").iterdir())
        folder = (options.output / "engine").absolute()
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
        command = [Path(python).absolute(), "-m", "benchmarks.engine", onnx, "-o", folder]
        command += ["--timing-cache", (options.output / "timing.cache").absolute()]
        command += ["--pictures", *references, "--shapes", *map(as_text, shapes)]
        libraries = [os.environ.get("LD_LIBRARY_PATH", ""), *cuda_folders()]
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise ExportError(f"--tensorrt-python: {error}") from None
        print(done.stderr, end="", file=sys.stderr)
        silent = f"{python} ended with code {done.returncode}"  # -11 is a segmentation fault
        said = (done.stderr.strip().splitlines() or [silent])[-1]
        said = said.removeprefix("benchmarks.engine: ")
        if not (folder / RECORD).exists():
            raise ExportError(said)
        record = json.loads((folder / RECORD).read_text())
        skipped = {f"{TENSORRT}, {shape}": why for shape, why in record.pop("failed").items()}
        if done.returncode:
            skipped[f"{TENSORRT}, what follows"] = said
        return record | {"skipped": skipped} | judge_alphas(references, folder)


def judge_alphas(references: list[Path], folder: Path) -> dict[str, object]:
    """Return how equal the alphas in a folder are to the network's."""
    missing = [path.stem for path in references if not (folder / f"{path.stem}.npy").exists()]
    if missing:
        return {"complaints": [f"not compared, for want of {', '.join(missing)}"], "failed": True}
    try:
        parity = judge(
            [
                compare(picture, alpha, np.load(folder / f"{picture.name}.npy"))
                for picture, alpha in map(read_reference, references)
            ],
            "fp16",
        )
    except ExportError as error:
        return {"complaints": [str(error)], "failed": True}
    return {
        "parity": parity.summary(),
        "complaints": parity.complaints,
        "failed": bool(parity.complaints),
    }


def cuda_folders() -> set[str]:
    """Return where the CUDA runtime lies that PyTorch has loaded, which Polygraphy looks for."""
    mapped = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    return {str(Path(m[5]).parent) for m in mapped if len(m) > 5 and "/libcudart" in m[5]}


def render(record: dict) -> list[Section]:
    """Return a record's tables and what follows from them."""
    layers = layer_rows(record) if "layers" in record else []
    return [section for section in (peer_rows(record), notes(record), layers) if section]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return {
        f"{shape}, {name}": values
        for name, by_shape in record["ms"].items()
        for shape, values in by_shape.items()
    }


def peer_rows(record: dict) -> list[Row]:
    """Return, by shape and way, milliseconds, beside PyTorch's best, and of the ceiling."""
    rows = []
    for shape, work in record["flops"].items():
        found = {name: ms[shape] for name, ms in record["ms"].items() if shape in ms}
        best = min((median(found[name]) for name in PEERS if name in found), default=None)
        base = median(found[BASE]) if BASE in found else None
        for name, milliseconds in found.items():
            took = percentiles(milliseconds)
            rows.append(
                {
                    "N x H x W": shape,
                    "way": name,
                    "times as fast": f"{base / took['p50']:.2f}" if base else "–",
                    "as PyTorch's best": f"{best / took['p50']:.2f}" if best else "–",
                    "ms": f"{took['p50']:.2f}",
                    "p90": f"{took['p90']:.2f}" if took["p90"] else "–",
                    "of the ceiling": f"{work / took['p50'] * 1000 / record['matrix_rate']:.0%}",
                }
            )
    return rows


def notes(record: dict) -> list[str]:
    """Return the ceiling, what was not run, and whether the engine is the network."""
    points = [
        f"Best matrix product in FP16: {record['matrix_rate'] / 1e12:.0f} TFLOP/s.",
        f"PyTorch {record['torch']}.",
    ]
    if record["ms"][TENSORRT]:
        points.append("TensorRT has one engine for all shapes, PyTorch tunes itself for each.")
    if "unfinished" in record:
        points += ["Cut off: what is missing was not measured."]
    points += [f"Not run: {name}: {reason}." for name, reason in record["skipped"].items()]
    if "engine" in record:
        engine = record["engine"]
        verdict = "; ".join(record["complaints"]) or "within the tolerance of FP16"
        with_cache = ", with a timing cache from before" if engine["timing_cache"] else ""
        points += [
            f"TensorRT {engine['version']}, built in {engine['build_s']} s{with_cache}; "
            f"compared with the network on pictures: {verdict}."
        ]
    return points


def layer_rows(record: dict) -> list[Row]:
    """Return the layers of the engine that take longest, one kernel after another."""
    shape, layers = record["layers"]
    total = sum(layers.values())
    slowest = sorted(layers.items(), key=lambda layer: -layer[1])[:SLOWEST]
    return [
        {f"layer at {shape}": name, "ms": f"{ms:.3f}", "share": f"{ms / total:.1%}"}
        for name, ms in slowest
    ]
