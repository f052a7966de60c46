"""A TensorRT engine of an exported model.onnx, where there is no PyTorch.

Python 3.9, NumPy, Polygraphy and TensorRT are enough, for TensorRT 8.6 does not go together with a
PyTorch that exports. Where both are, `python -m export` does it all and writes a manifest.

Pictures are what `python -m export.parity` wrote: with the network's own alphas.

examples:
  python -m export.plan model.onnx -o model.plan
  python -m export.plan model.onnx -o model.plan --largest 1x1088x1920 --pictures pictures/*.npz
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.engine import MODULES, Profile, add_arguments, as_text, build_engine, engine_matte
from export.errors import ExportError
from export.tolerance import TOLERANCES

if TYPE_CHECKING:
    from export.parity import Matte

WARMUP, RUNS = 3, 20


def measure(matte: Matte, pictures: list[Path], tolerance: float) -> list[str]:
    """Time a matte on pictures and compare it with the network, printing a line for each.

    Parameters
    ----------
    matte : callable
        The wire contract as a function, see `export.parity`.
    pictures : list of Path
        What `export.parity.save_references` wrote.
    tolerance : float
        Largest mean |difference| of alpha in 0..1.

    Returns
    -------
    list of str
        What is wrong; empty where every picture is within the tolerance.
    """
    complaints = []
    for path in pictures:
        with np.load(path) as stored:
            image, trimap, expected = (stored[name] for name in ("image", "trimap", "alpha"))
        milliseconds = []
        for _ in range(WARMUP + RUNS):
            start = time.perf_counter()
            alpha = matte(image[None], trimap[None, ..., None])[0, ..., 0]
            milliseconds.append((time.perf_counter() - start) * 1000)
        difference = np.abs(alpha.astype(np.float32) - expected) / 255
        mean = float(difference.mean())
        median = statistics.median(milliseconds[WARMUP:])
        print(
            f"{path.stem}, {as_text(trimap.shape)}: {median:.2f} ms with copies, alpha differs by "
            f"{mean:.2e} in the mean, {difference.max():.3f} at most"
        )
        if not mean <= tolerance:
            complaints.append(f"{path.stem} by {mean:.2g}, at most {tolerance:g} is allowed")
    return complaints


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("onnx", type=Path, help="exported model.onnx, its weights beside it")
    parser.add_argument("-o", "--output", type=Path, default=Path("model.plan"), metavar="FILE")
    parser.add_argument("--target", choices=MODULES, default="tensorrt", help="(%(default)s)")
    parser.add_argument(
        "--precision",
        choices=TOLERANCES,
        default="fp16",
        help="what the graph was exported in (%(default)s)",
    )
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=[], metavar="NPZ", help="run the engine on them"
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        options.onnx.stat()
        engine, facts = build_engine(
            options.onnx,
            options.target,
            options.precision,
            Profile(options.smallest, options.best, options.largest),
            capability=options.capability,
            timing_cache=options.timing_cache,
        )
        partial = options.output.with_name(f".{options.output.name}.partial")
        partial.write_bytes(engine)
        partial.replace(options.output)
        print(options.output, json.dumps(facts))
        if options.pictures:
            tolerance = TOLERANCES[options.precision].mean_alpha
            complaints = measure(engine_matte(engine, options.target), options.pictures, tolerance)
            if complaints:
                raise ExportError("alpha differs from the network's: " + "; ".join(complaints))
    except ExportError as error:
        print(f"export.plan: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export.plan: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
