"""How many images a second a server answers: against concurrency, batch and image size.

Requests come from another process over gRPC; a fixed number is kept in flight until the end.
perf_analyzer, Triton's own load generator, measures the same points beside it when it is on PATH.
"""

import argparse
import csv
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.load import Client
from benchmarks.measure import Samples, median, percentiles
from benchmarks.service import add_server_arguments, picture_of, serving, size, what_serves
from benchmarks.tables import Section
from client.arguments import positive
from client.connection import MODEL

EXAMPLES = """examples:
  python -m benchmarks throughput
  python -m benchmarks throughput --size 512x512 --concurrency 1 2 4 8 16 --seconds 30
  python -m benchmarks throughput --url 127.0.0.1:8001 --batch 1 8
"""
QUICK = "64x64 pictures, two points each way, half a second each"
GROWING = ((128, 128), (256, 256), (512, 512), (768, 768), (1024, 1024), (1024, 2048))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    parser.add_argument(
        "--size",
        type=size,
        default=(320, 320),
        metavar="HxW",
        help="size of the pictures while concurrency and batch grow (320x320)",
    )
    for name, meaning in (("concurrency", "requests in flight"), ("batch", "images in a request")):
        parser.add_argument(
            f"--{name}",
            type=positive(int),
            nargs="+",
            default=[1, 2, 4, 8],
            help=f"{meaning} (1 2 4 8)",
        )
    parser.add_argument(
        "--seconds", type=float, default=8, help="time for each point, roughly (%(default)s)"
    )


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: every point of the plan."""
    measured = []
    seconds = 0.5 if options.quick else options.seconds
    with serving(options.repository, options.url) as url, Client(url) as client:
        served = what_serves(url, options.repository)
        for point in tqdm(plan(options), unit="point", disable=None):
            measured.append(point | measure_point(client, url, seconds, **point))
    return {**asdict(served), "points": measured}


def plan(options: argparse.Namespace) -> list[dict[str, int]]:
    """Return the points: growing concurrency, then batch, then image size, the others at 1."""
    height, width = options.size
    concurrencies, batches, sizes = options.concurrency, options.batch, GROWING
    if options.quick:
        height, width, concurrencies, batches, sizes = 64, 64, [1, 2], [1, 2], GROWING[:1]
    points = [(height, width, concurrency, 1) for concurrency in concurrencies]
    points += [(height, width, 1, batch) for batch in batches]
    points += [(*larger, 1, 1) for larger in sizes]
    names = ("height", "width", "concurrency", "batch")
    return [dict(zip(names, point, strict=True)) for point in dict.fromkeys(points)]


def measure_point(
    client: Client, url: str, seconds: float, height: int, width: int, concurrency: int, batch: int
) -> dict[str, object]:
    """Measure one point for about so many seconds, or for two rounds where these take longer."""
    image, trimap = picture_of(height, width)
    batches = np.stack([image] * batch), np.stack([trimap] * batch)[..., np.newaxis]
    trial = client.load(*batches, concurrency, concurrency)  # the first run at a size is slower
    rate = trial["images_per_second"] / batch
    requests = max(2 * concurrency, round(seconds * rate / concurrency) * concurrency)
    result = client.load(*batches, concurrency, requests)
    if shutil.which("perf_analyzer"):
        result["perf_analyzer"] = perf_analyzer(url, height, width, concurrency, batch, requests)
    return result


def perf_analyzer(
    url: str, height: int, width: int, concurrency: int, batch: int, requests: int
) -> float | None:
    """Return the images a second that perf_analyzer measures; None if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        done = subprocess.run(
            [
                "perf_analyzer",
                *("-m", MODEL, "-i", "grpc", "-u", url, "-b", str(batch), "-f", report),
                *("--shape", f"image:{height},{width},3", "--shape", f"trimap:{height},{width},1"),
                *("--concurrency-range", str(concurrency), "--stability-percentage", "100"),
                *("--measurement-mode", "count_windows"),
                *("--measurement-request-count", str(requests)),
            ],
            check=False,
            capture_output=True,
        )
        if done.returncode != 0:
            return None
        with report.open() as file:
            return float(next(csv.DictReader(file))["Inferences/Second"])


def render(record: dict) -> list[Section]:
    """Return a record's table."""
    rows = []
    for point in record["points"]:
        row = {
            "size": f"{point['height']}x{point['width']}",
            "concurrency": str(point["concurrency"]),
            "batch": str(point["batch"]),
            "images/s": f"{point['images_per_second']:.2f}",
            "megapixels/s": f"{megapixels_per_second(point):.3f}",
            "request, p50 ms": f"{median(point['samples_ms']):.0f}",
        }
        p95 = percentiles(point["samples_ms"])["p95"]
        row["p95 ms"] = "–" if p95 is None else f"{p95:.0f}"
        row["n"] = str(len(point["samples_ms"]))
        if "perf_analyzer" in point:
            rate = point["perf_analyzer"]
            row["perf_analyzer, images/s"] = "–" if rate is None else f"{rate:.2f}"
        rows.append(row)
    return [rows, *agreement(record["points"])]


def agreement(points: list[dict]) -> list[list[str]]:
    """Return how far the two load generators are apart, where both measured."""
    both = [point for point in points if point.get("perf_analyzer")]
    if not both:
        return []
    apart = [point["perf_analyzer"] / point["images_per_second"] - 1 for point in both]
    furthest = max(range(len(both)), key=lambda i: abs(apart[i]))
    return [
        [
            f"perf_analyzer beside this client: {np.median(apart):+.1%} (median); furthest "
            f"{apart[furthest]:+.1%}, {describe(both[furthest])}."
        ]
    ]


def describe(point: dict) -> str:
    """Name a point."""
    return "{height}x{width}, concurrency {concurrency}, batch {batch}".format_map(point)


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return {describe(point): point["samples_ms"] for point in record["points"]}


def megapixels_per_second(point: dict) -> float:
    """Return a point's images a second, times their size."""
    return point["images_per_second"] * point["height"] * point["width"] / 1e6
