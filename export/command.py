"""Export a checkpoint into a Triton model repository, or check one.

examples:
  python -m export weights.safetensors
  python -m export dim_stage3.pth --repository /srv/models
  python -m export weights.safetensors --precision int8 --data my_pictures --repository out/int8
  python -m export weights.safetensors --target tensorrt --precision fp16 --largest 8x1088x1920
  python -m export check model_repository
"""

# This is the help of all of `python -m export`; `check` is in __main__, for it needs no PyTorch.

import argparse
import sys
from pathlib import Path

from export.engine import Profile, add_arguments
from export.errors import ExportError
from export.export import NOT_RUN, TARGETS, Exported, export
from export.graph import PRECISIONS
from export.manifest import newest_version
from export.parity import Parity, add_pictures_argument
from export.quantize import INT8
from export.repository import MODEL
from matting.images import ImageError
from train.checkpoint import CheckpointError
from train.layouts import DataError


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="checkpoint: ours or mmediting's .pth")
    parser.add_argument(
        "--target", choices=TARGETS, default=TARGETS[0], help="what runs the model (%(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=[*PRECISIONS, INT8],
        help="precision of the model (fp32 on CPUs, fp16 on GPUs); int8 is for CPUs with VNNI",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository to write into, created if it does not exist (%(default)s)",
    )
    add_pictures_argument(parser, ", on which parity is checked and int8 is calibrated")
    add_arguments(parser.add_argument_group("TensorRT"))
    return parser.parse_args(arguments)


def table(parity: Parity) -> str:
    """Return the comparison as lines of text."""
    summary = parity.summary()
    lines = [f"{'':10}{'reference':>12}{'exported':>12}"]
    for name, value in summary["reference"].items():
        lines.append(f"{name:10}{value:12.5f}{summary['exported'][name]:12.5f}")
    lines.append(
        f"alpha differs by {summary['mean_difference']:.2e} on average, "
        f"{summary['largest_difference']:.3f} at most, on {summary['pictures']} pictures"
    )
    return "\n".join(lines)


def print_faster_ways(exported: Exported) -> None:
    """Print how equal an FP32 graph is where it is computed faster, or why it is not served so."""
    if isinstance(exported.in_bf16, Parity):
        print(f"in bf16, where the processor computes in it:\n{table(exported.in_bf16)}")
    elif exported.in_bf16:
        print(f"served in FP32; in bf16 {exported.in_bf16}")
    if isinstance(exported.in_winograd, Parity):
        print(f"in FP32 by MNN, on AVX2 without AVX-512:\n{table(exported.in_winograd)}")
    elif exported.in_winograd:
        print(f"served in FP32 by OpenVINO everywhere; by MNN {exported.in_winograd}")


def run_export(arguments: list[str]) -> int:
    options = parse(arguments)
    on_gpu = options.target.startswith("tensorrt")
    precision = options.precision or ("fp16" if on_gpu else "fp32")
    try:
        exported = export(
            options.weights,
            options.repository,
            options.target,
            precision,
            pictures=options.data,
            profile=Profile(options.smallest, options.best, options.largest),
            capability=options.capability,
            timing_cache=options.timing_cache,
        )
    except (CheckpointError, DataError, ImageError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(exported.artifact)
    newest = newest_version(options.repository / MODEL)
    if newest != exported.artifact.parent:
        print(f"export: {newest} is a newer version, which is served instead", file=sys.stderr)
    print(table(exported.parity) if exported.parity else f"parity {NOT_RUN}")
    print_faster_ways(exported)
    return 0
