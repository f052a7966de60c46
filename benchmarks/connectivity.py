"""How long the connectivity error takes, beside the way mmediting computes it.

The reference here follows mmediting 0.16.1's description to the letter: float32 arrays, for each of
ten thresholds two comparisons, one labelling of the whole image, and one float32 mask.
"""

import argparse
import functools
import itertools
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import Samples, in_turns, median, samples_of, stopwatch
from benchmarks.tables import Section
from matting.images import read_gray
from matting.metrics import connectivity_error
from matting.trimaps import trimap_from_alpha

EXAMPLES = "example: python -m benchmarks connectivity my_alpha.png"
QUICK = "the smallest drawn matte only"
SIZES = ((480, 640), (1080, 1920), (2160, 3840))
THRESHOLDS = np.arange(0, 1.1, 0.1)


def reference(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> float:
    """Compute the connectivity error threshold by threshold, the straightforward way."""
    mattes = [alpha.astype(np.float32) / 255 for alpha in (prediction, truth)]
    left_at = np.full(trimap.shape, -1, np.float32)
    for previous, threshold in itertools.pairwise(THRESHOLDS):
        both = (mattes[0] >= np.float32(threshold)) & (mattes[1] >= np.float32(threshold))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            both.astype(np.uint8), connectivity=4
        )
        areas = stats[1:, cv2.CC_STAT_AREA]
        source = labels == areas.argmax() + 1 if areas.size else np.zeros_like(both)
        left_at[(left_at == -1) & ~source] = previous
    left_at[left_at == -1] = 1
    distances = [alpha - left_at for alpha in mattes]
    connected = [1 - distance * (distance >= np.float32(0.15)) for distance in distances]
    return float(np.sum(np.abs(connected[0] - connected[1]) * (trimap == 128))) / 1000


def hairy_alpha(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw a head with a few hundred hairs and some loose specks, H x W uint8."""
    random = np.random.default_rng(seed)
    scale = height / 480
    centre = np.array([width / 2, height * 0.6])
    alpha = np.zeros((height, width), np.uint8)
    axes = (int(height * 0.25), int(height * 0.33))
    for angle in random.uniform(0, 2 * np.pi, 400):
        reach = np.linspace(0.9, random.uniform(1.1, 1.6), 20)[:, None]
        bend = angle + random.normal(0, 0.3) * (reach - 0.9)
        hair = centre + reach * np.hstack([np.cos(bend) * axes[0], np.sin(bend) * axes[1]])
        opacity = int(random.uniform(60, 255))
        thickness = max(1, round(scale))
        cv2.polylines(alpha, [hair.astype(np.int32)], False, opacity, thickness, cv2.LINE_AA)
    cv2.ellipse(alpha, centre.astype(int).tolist(), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    for x, y in random.uniform((0, 0), (width, height), (40, 2)):
        cv2.circle(alpha, (int(x), int(y)), max(1, round(2 * scale)), 255, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(alpha, (0, 0), 0.7 * scale)


def with_prediction(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return prediction, truth and trimap; the prediction is the truth, blurred and noisy."""
    trimap = trimap_from_alpha(truth, 15, 15)
    noise = np.random.default_rng(0).normal(0, 4, truth.shape)
    prediction = np.clip(cv2.GaussianBlur(truth, (0, 0), 1.5) + noise, 0, 255).astype(np.uint8)
    prediction[trimap != 128] = trimap[trimap != 128]
    return prediction, truth, trimap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    parser.add_argument("alphas", nargs="*", type=Path, help="your mattes (default: drawn ones)")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result; it has failed if the two computations differ."""
    truths = [read_gray(path) for path in options.alphas]
    truths = truths or [hairy_alpha(*size) for size in SIZES[: 1 if options.quick else None]]
    cases = [measure_case(truth, seconds=1 if options.quick else 20) for truth in truths]
    return {"cases": cases, "failed": not all(case["equal"] for case in cases)}


def measure_case(truth: np.ndarray, seconds: float) -> dict[str, object]:
    """Time both computations on one matte, H x W uint8, for about so many seconds."""
    case = with_prediction(truth)
    error, expected = connectivity_error(*case), reference(*case)
    size = "{}x{}".format(*truth.shape)
    timers = [
        stopwatch("reference", functools.partial(reference, *case)),
        stopwatch("matting", functools.partial(connectivity_error, *case)),
    ]
    return {
        "size": size,
        "unknown": float((case[2] == 128).mean()),
        "CONN": error,
        "equal": abs(error - expected) <= 1e-6 * expected,
        "samples_ms": in_turns(timers, seconds=seconds, title=size),
    }


def render(record: dict) -> list[Section]:
    """Return a record's table."""
    rows = []
    for case in record["cases"]:
        slow, fast = (median(case["samples_ms"][name]) for name in ("reference", "matting"))
        rows.append(
            {
                "matte": case["size"],
                "unknown": f"{case['unknown']:.1%}",
                "as mmediting, ms": f"{slow:.1f}",
                "matting.metrics, ms": f"{fast:.1f}",
                "times faster": f"{slow / fast:.1f}",
                "equal": "yes" if case["equal"] else "no",
            }
        )
    return [rows]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return samples_of(record["cases"], "size")
