"""Build a TensorRT engine from an exported model.onnx, where there is no PyTorch.

Python 3.9, NumPy, Polygraphy and TensorRT are enough: TensorRT 8.6 does not run beside a PyTorch
that can export. Where both are installed, use `python -m export`, which does everything.

--pictures takes files that `python -m export.parity` wrote, which hold the network's own alphas. An
engine that is not equal to the network on them is not written. This needs Python 3.10 and OpenCV.

If the output is a model.plan in one of Triton's version folders, such as model_repository/dim/1,
the model's configs/tensorrt.pbtxt is adapted to it, as `python -m export` does.

examples:
  python -m export.plan model.onnx -o model.plan
  python -m export.plan model.onnx -o model.plan --largest 1x1088x1920 --pictures pictures/*.npz
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from export.engine import (
    MODULES,
    Profile,
    add_arguments,
    as_text,
    build_engine,
    check_file,
    engine_matte,
)
from export.errors import ExportError
from export.manifest import describe, read_manifest, write_entry
from export.repository import FOR_TENSORRT, read_config, with_profile
from matting.files import sha256, write_whole
from matting.signals import run_until_stopped

if TYPE_CHECKING:
    from export.parity import Matting, Parity

PLAN = "model.plan"
"""What Triton's TensorRT backend serves."""

WARMUP, RUNS = 3, 20
PRECISIONS = ("fp32", "fp16")


def entry_of(onnx: Path) -> dict:
    """Return what the manifest beside a graph says of it; empty if it says nothing of this one."""
    entry = read_manifest(onnx.parent).get(onnx.name, {})
    return entry if entry.get("files", {}).get(onnx.name) == sha256(onnx) else {}


def graph_precision(onnx: Path, asked: str | None) -> str:
    """Return what a graph computes in, as the manifest beside it says, or as asked without one.

    Raises
    ------
    ExportError
        The two differ, neither says it, or it is none that TensorRT builds.
    """
    exported_in = entry_of(onnx).get("precision")
    if exported_in and asked and asked != exported_in:
        raise ExportError(f"{onnx} was exported in {exported_in}, not in --precision {asked}")
    precision = exported_in or asked
    if precision is None:
        raise ExportError(f"no manifest.json beside {onnx} has its precision: give --precision")
    if precision not in PRECISIONS:
        raise ExportError(f"{onnx} was exported in {precision}: TensorRT takes fp32 or fp16")
    return precision


def config_beside(output: Path, profile: Profile) -> dict[Path, str]:
    """Return the configuration by which Triton would serve an engine, adapted to the engine.

    Empty where the engine is not a model.plan in a version folder of a model that has one.

    Raises
    ------
    ExportError
        It cannot be made to fit, see `export.repository.with_profile`.
    """
    version = output.absolute().parent
    config = version.parent / FOR_TENSORRT
    if output.name != PLAN or not version.name.isdecimal() or not config.is_file():
        return {}
    return {config: with_profile(read_config(version.parent, FOR_TENSORRT), profile)}


def check_files(places: list[Path], pictures: list[Path], profile: Profile) -> None:
    """Raise the errors of writing files or running an engine on a picture, before it is built."""
    for place in places:
        check_file(place)
    if pictures:
        read_reference = import_parity().read_reference
        for picture, _ in map(read_reference, pictures):
            profile.check(picture.name, picture.trimap.shape)


def import_parity() -> ModuleType:
    """Import the module that compares alphas, which not every machine that builds engines can."""
    try:
        return importlib.import_module("export.parity")
    except (ImportError, TypeError) as error:  # TypeError: Python 3.9 does not know `X | None`
        raise ExportError(f"--pictures needs Python 3.10 and OpenCV: {error}") from error


def measure(matte: Matting, pictures: list[Path], precision: str) -> Parity:
    """Time a matte on pictures and compare it with the network, printing a line for each.

    Parameters
    ----------
    matte : callable
        The wire contract as a function, see `export.parity`.
    pictures : list of Path
        What `export.parity.save_references` wrote.
    precision : str
        Whose tolerance judges.

    Raises
    ------
    ExportError
        It is not equal, a picture is none, or OpenCV or a newer Python is missing.
    """
    parity_of = import_parity()
    comparisons = []
    for picture, expected in map(parity_of.read_reference, pictures):
        milliseconds = []
        for _ in range(WARMUP + RUNS):
            start = time.perf_counter()
            alpha = parity_of.alpha_alone(matte, picture)
            milliseconds.append((time.perf_counter() - start) * 1000)
        found = parity_of.compare(picture, expected, alpha)
        comparisons.append(found)
        median = statistics.median(milliseconds[WARMUP:])
        print(
            f"{picture.name}, {as_text(picture.trimap.shape)}: {median:.2f} ms with copies; alpha "
            f"differs by {found.mean_difference:.2e} on average, {found.largest_difference:.3f} "
            "at most"
        )
    return parity_of.proven(comparisons, precision)


def put_in_place(
    engine: bytes, output: Path, entry: dict[str, object], configs: dict[Path, str]
) -> None:
    """Write an engine, whole or not at all, and then its entry into the manifest beside it."""
    write_whole(output, engine)
    for config, text in configs.items():
        write_whole(config, text.encode())
    entry["files"] = {output.name: sha256(output)}
    write_entry(output.parent, output.name, entry)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("onnx", type=Path, help="exported model.onnx, with its weights beside it")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(PLAN),
        metavar="FILE",
        help="the engine (%(default)s)",
    )
    parser.add_argument(
        "--target", choices=MODULES, default="tensorrt", help="what runs the engine (%(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="precision of the graph, needed if there is no manifest.json beside it",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        default=[],
        metavar="NPZ",
        help="compare the engine with the network on these",
    )
    add_arguments(parser)
    return parser.parse_args(arguments)


def build(options: argparse.Namespace) -> None:
    """Build an engine, compare it with the network where there are pictures, put it in place."""
    options.onnx.stat()
    precision = graph_precision(options.onnx, options.precision)
    profile = Profile(options.smallest, options.best, options.largest)
    for_triton = options.target == "tensorrt"
    configs = config_beside(options.output, profile) if for_triton else {}
    check_files([options.output, *configs], options.pictures, profile)
    engine, facts = build_engine(
        options.onnx,
        options.target,
        precision,
        profile,
        capability=options.capability,
        timing_cache=options.timing_cache,
    )
    entry = describe(options.onnx, options.target, precision)
    if checkpoint := entry_of(options.onnx).get("checkpoint"):
        entry["checkpoint"] = checkpoint
    entry.update(engine=facts, parity="not run: no --pictures")
    if options.pictures:
        matte = engine_matte(engine, options.target)
        entry["parity"] = measure(matte, options.pictures, precision).summary()
    put_in_place(engine, options.output, entry, configs)
    print(options.output, json.dumps(facts))
    if for_triton and not configs:
        print(
            f"for Triton, set max_batch_size: {profile.largest[0]} and a warm-up of "
            f"{as_text(profile.best[1:])} in {FOR_TENSORRT}"
        )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        build(options)
    except ExportError as error:
        print(f"export.plan: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export.plan: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_until_stopped("export.plan", main))
