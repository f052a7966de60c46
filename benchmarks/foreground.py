"""How good foreground colours are and how long they take, beside pymatting's multi-level solver.

Composites of known layers: the project's own pictures, one as foreground and one as background,
under the alphas of `export/pictures` and, at full HD, a drawn one. The error is the mean difference
of the colours where alpha is between 0 and 1, weighted with alpha, of 255.
"""

import argparse
import functools
from collections.abc import Iterator

import numpy as np

from benchmarks.connectivity import hairy_alpha
from benchmarks.measure import Samples, in_turns, median, samples_of, stopwatch
from benchmarks.service import demo_image
from benchmarks.tables import Section
from export.parity import PICTURES
from matting.compositing import composite, fit_background
from matting.foreground import estimate_foreground
from matting.images import read_gray

EXAMPLES = "example: python -m benchmarks foreground"
QUICK = "one small composite only"
FULL_HD = 1080, 1920
IMAGE, SOLVER, OURS = "the image as it is", "pymatting, multi-level", "matting.foreground"


def solve(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground as `matting.foreground` does, uint8 in and out, by pymatting."""
    from pymatting import estimate_foreground_ml  # takes seconds: not for other benchmarks

    return np.rint(estimate_foreground_ml(image / 255, alpha / 255) * 255).astype(np.uint8)


def error(found: np.ndarray, truth: np.ndarray, alpha: np.ndarray) -> float:
    """Compute the mean absolute error of H×W×3 colours, weighted with an H×W uint8 alpha."""
    weight = np.where(alpha < 255, alpha, 0) / 255
    distance = np.abs(found.astype(float) - truth).mean(axis=2)
    return float((weight * distance).sum() / weight.sum())


def composites() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield names, images and true foregrounds, H×W×3 uint8, and alphas, H×W uint8."""
    alphas = {path.stem: read_gray(path) for path in sorted((PICTURES / "alpha").iterdir())}
    alphas["drawn hair"] = hairy_alpha(*FULL_HD)
    layers = {name: demo_image(name) for name in ("photo", "background")}
    for name, alpha in alphas.items():
        for front, back in (("photo", "background"), ("background", "photo")):
            foreground, background = (
                fit_background(layers[layer], *alpha.shape) for layer in (front, back)
            )
            image = composite(alpha, foreground, background)
            yield f"{name}, {front} on {back}", image, foreground, alpha


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own: none."""


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: errors and times of both estimates on every composite."""
    cases = []
    for name, image, truth, alpha in composites():
        functions = {SOLVER: solve, OURS: estimate_foreground}
        timers = [
            stopwatch(who, functools.partial(function, image, alpha))
            for who, function in functions.items()
        ]
        found = {IMAGE: image} | {
            who: function(image, alpha) for who, function in functions.items()
        }
        cases.append(
            {
                "composite": name,
                "size": "{}x{}".format(*alpha.shape),
                "errors": {who: round(error(f, truth, alpha), 3) for who, f in found.items()},
                "samples_ms": in_turns(timers, seconds=1 if options.quick else 10, title=name),
            }
        )
        if options.quick:
            break
    return {"cases": cases}


def render(record: dict) -> list[Section]:
    """Return a record's table."""
    rows = []
    for case in record["cases"]:
        errors = {f"error, {who}": f"{value:.2f}" for who, value in case["errors"].items()}
        times = {f"ms, {who}": f"{median(t):.0f}" for who, t in case["samples_ms"].items()}
        rows.append({"composite": case["composite"], "size": case["size"]} | errors | times)
    return [rows]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return samples_of(record["cases"], "composite")
