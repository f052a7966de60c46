"""What it saves to send less than the whole photo, and what it costs in quality.

Every picture is matted whole, as the client does by default (in tiles around the unknown region,
where they are less work), and with --half, by the same server in turns. Pictures smaller than
--megapixels are stretched to it. Pictures too large for the server are not measured whole.
"""

import argparse
import math
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.load import END_TO_END, TIMEOUT, Client
from benchmarks.measure import Samples, how_often, in_turns, median, samples_of, stopwatch
from benchmarks.service import (
    add_server_arguments,
    max_pixels,
    peak_memory,
    serving,
    what_serves,
)
from benchmarks.tables import Section
from client.arguments import positive
from client.connection import Matte
from client.tiles import padded_pixels, plan_tiles
from export.parity import Picture, add_pictures_argument, read_pictures
from matting.metrics import sad
from matting.trimaps import is_unknown
from train.layouts import evenly

WHOLE, TILED, HALF = "whole", "tiles where they pay", "--half"
FITTED = 6
"""A law is fitted through so many pictures, or more."""
QUICK = "one picture of the size that it has, one round"
EXAMPLES = """examples:
  python -m benchmarks tiles
  python -m benchmarks tiles --data photographs --megapixels 0
  python -m benchmarks tiles --megapixels 50 --pictures 1 --rounds 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    add_pictures_argument(parser)
    parser.add_argument(
        "--megapixels",
        type=float,
        default=1.5,
        help="stretch smaller pictures to this (%(default)s)",
    )
    parser.add_argument(
        "--pictures", type=positive(int), metavar="N", help="how many, evenly chosen (all)"
    )
    parser.add_argument("--rounds", type=positive(int), default=3, help="how many (%(default)s)")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: time and SAD of every picture, whole and in tiles, and the most memory."""
    megapixels, rounds = (0, 1) if options.quick else (options.megapixels, options.rounds)
    count = 1 if options.quick else options.pictures
    pictures = evenly(list(read_pictures(options.data)), count)
    cases = []
    with (
        serving(options.repository, options.url) as url,
        Client(url) as client,
        Matte(url, timeout=TIMEOUT) as matte,
    ):
        served, most = what_serves(url, options.repository), max_pixels(url)
        for picture in tqdm(pictures, unit="picture", disable=None):
            cases.append(measure_picture(client, matte, enlarge(picture, megapixels), most, rounds))
    largest = enlarge(max(pictures, key=lambda picture: picture.trimap.size), megapixels)
    memory = None if options.url else measure_memory(options.repository, largest, most)
    return {**asdict(served), "pictures": cases, "memory_gib": memory}


def ways(picture: Picture, most: float) -> dict[str, dict]:
    """Return what the client is told, for a server that takes `most` pixels at once, padded."""
    whole = {WHOLE: {"tile": "off"}} if padded_pixels(picture.trimap) <= most else {}
    return whole | {TILED: {}, HALF: {"half": True}}


def measure_memory(repository: Path, picture: Picture, most: float) -> dict[str, float]:
    """Return what a server needs when it is ready, and at most for one picture each way."""
    peaks = {}
    for name, told in ways(picture, most).items():

        def work(url: str, told: dict = told) -> None:
            with Matte(url, timeout=TIMEOUT) as matte:
                matte.alpha(picture.image, picture.trimap, **told)

        peaks["ready"], peaks[name] = peak_memory(repository, work)
    return peaks


def enlarge(picture: Picture, megapixels: float) -> Picture:
    """Stretch a picture to at least so many megapixels."""
    height, width = picture.trimap.shape
    zoom = max(1.0, (megapixels * 1e6 / (height * width)) ** 0.5)
    size = round(width * zoom), round(height * zoom)
    image, alpha = (
        cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        for pixels in (picture.image, picture.alpha)
    )
    trimap = cv2.resize(picture.trimap, size, interpolation=cv2.INTER_NEAREST)
    return Picture(picture.name, image, trimap, alpha)


def measure_picture(
    client: Client, matte: Matte, picture: Picture, most: float, rounds: int
) -> dict:
    """Time one picture each way, and compare the alphas with the true one."""
    pixels = picture.image, picture.trimap
    chosen = ways(picture, most)
    errors = {
        name: sad(matte.alpha(*pixels, **told), picture.alpha, picture.ternary_trimap)
        for name, told in chosen.items()
    }
    timers = {
        WHOLE: lambda: {WHOLE: client.request(*pixels)[END_TO_END]},
        TILED: lambda: {TILED: client.default_request(*pixels)},
        HALF: stopwatch(HALF, lambda: matte.alpha(*pixels, **chosen[HALF])),
    }
    return {
        "name": picture.name,
        "height": picture.trimap.shape[0],
        "width": picture.trimap.shape[1],
        "unknown": float(is_unknown(picture.trimap).mean()),
        "tiles": len(plan_tiles(picture.trimap)),
        "SAD": errors,
        "samples_ms": in_turns(
            [timers[name] for name in chosen], warmup=0, least=rounds, most=rounds
        ),
    }


def render(record: dict) -> list[Section]:
    """Return a record's table and the law that its pictures follow."""
    rows = []
    for case in record["pictures"]:
        row = {
            "picture": case["name"],
            "size": f"{case['height']}x{case['width']}",
            "unknown": f"{case['unknown']:.1%}",
            "SAD, whole": f"{case['SAD'][WHOLE]:.2f}" if WHOLE in case["SAD"] else "–",
        }
        rows.append(row | {way: in_words(case, way) for way in (WHOLE, TILED, HALF)})
    timed = how_often([len(values) for values in samples(record).values()])
    points = [f"{timed.capitalize()}.", *laws(record["pictures"])]
    if memory := record["memory_gib"]:
        height, width = max(
            ((case["height"], case["width"]) for case in record["pictures"]), key=math.prod
        )
        words = {WHOLE: WHOLE, TILED: f"in {TILED}", HALF: f"with `{HALF}`"}
        peaks = [f"{memory[name]:.2f} GiB {words[name]}" for name in words if name in memory]
        points.append(
            f"Memory of the server for {height}x{width}, at most: {', '.join(peaks)}; "
            f"{memory['ready']:.2f} GiB before."
        )
    return [rows, points]


def in_words(case: dict, way: str) -> str:
    """Return a way's time, and by how much it is faster than whole and changes SAD."""
    if way not in case["SAD"]:
        return "–"
    words = f"{median(case['samples_ms'][way]):.0f} ms"
    if way == WHOLE or WHOLE not in case["SAD"]:
        return words
    change = case["SAD"][way] / case["SAD"][WHOLE] - 1
    return f"{pace(case, WHOLE) / pace(case, way):.2f}× ({words}), SAD {change:+.1%}"


def laws(cases: list[dict]) -> list[str]:
    """Return the medians over the pictures, and the time for a megapixel by unknown share."""
    both = [case for case in cases if WHOLE in case["SAD"]]
    points = []
    for way in (TILED, HALF) if both else ():
        gain = np.median([pace(case, WHOLE) / pace(case, way) for case in both])
        whole, other = (np.mean([case["SAD"][name] for case in both]) for name in (WHOLE, way))
        change = f"mean SAD changes by {other / whole - 1:+.2%}"
        points.append(f"{way}: {gain:.2f} times faster (median); {change}.")
    if len(cases) >= FITTED:
        paces = []
        for way in (TILED, HALF):
            start, slope, error = law(cases, way)
            paces.append(f"{start:.2f} + ({slope:.1f} ± {error:.1f}) × unknown share, {way}")
        if both:
            paces.append(f"{np.median([pace(case, WHOLE) for case in both]):.2f} whole")
        points.append(f"Seconds for a megapixel, ± standard error: {'; '.join(paces)}.")
    return points


def law(cases: list[dict], way: str) -> tuple[float, float, float]:
    """Fit seconds for a megapixel to the unknown share: start, slope and the slope's error."""
    shares, paces = [case["unknown"] for case in cases], [pace(case, way) for case in cases]
    (slope, start), covariance = np.polyfit(shares, paces, 1, cov=True)
    return start, slope, covariance[0, 0] ** 0.5


def pace(case: dict, way: str) -> float:
    """Return seconds for a megapixel."""
    return median(case["samples_ms"][way]) * 1e3 / (case["height"] * case["width"])


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return samples_of(record["pictures"], "name")
