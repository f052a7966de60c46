"""What it saves to send only the surroundings of the unknown region, and what it costs in quality.

Every picture is matted whole and as the client does unless told otherwise, in tiles where they are
less work, by the same server in turns. Pictures smaller than --megapixels are stretched to it.
"""

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.load import END_TO_END, TIMEOUT, Client
from benchmarks.measure import Samples, in_turns, median
from benchmarks.service import (
    add_pictures_argument,
    add_server_arguments,
    peak_memory,
    serving,
    what_serves,
)
from benchmarks.tables import Section
from client.connection import Matte, TileOption
from client.tiles import plan_tiles
from export.parity import Picture, read_pictures
from matting.metrics import sad
from matting.trimaps import is_unknown

WHOLE, TILED = "whole", "tiles where they pay"
QUICK = "one picture of 0.2 megapixels, one round"
EXAMPLES = """examples:
  python -m benchmarks tiles
  python -m benchmarks tiles --data photographs --megapixels 0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    add_pictures_argument(parser)
    parser.add_argument(
        "--megapixels", type=float, default=1.5, help="at least so large (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: time and SAD of every picture, whole and in tiles, and the most memory."""
    pictures = list(read_pictures(options.data))
    megapixels, rounds = options.megapixels, options.rounds
    if options.quick:
        pictures, megapixels, rounds = pictures[:1], 0.2, 1
    cases = []
    with (
        serving(options.repository, options.url) as url,
        Client(url) as client,
        Matte(url, timeout=TIMEOUT) as matte,
    ):
        served = what_serves(url)
        for picture in tqdm(pictures, unit="picture", disable=None):
            cases.append(measure_picture(client, matte, enlarge(picture, megapixels), rounds))
    largest = enlarge(max(pictures, key=lambda picture: picture.trimap.size), megapixels)
    memory = None if options.url else measure_memory(options.repository, largest)
    return {
        "engine": served.engine,
        "precision": served.precision,
        "pictures": cases,
        "memory_gib": memory,
    }


def measure_memory(repository: Path, picture: Picture) -> dict[str, float]:
    """Return what a server needs when it is ready, and at most for one picture both ways."""
    peaks = {}
    for name, tile in ((WHOLE, "off"), (TILED, "auto")):

        def work(url: str, tile: TileOption = tile) -> None:
            with Matte(url, timeout=TIMEOUT) as matte:
                matte.alpha(picture.image, picture.trimap, tile)

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


def measure_picture(client: Client, matte: Matte, picture: Picture, rounds: int) -> dict:
    """Time one picture both ways, and hold both alphas against the true one."""
    pixels = picture.image, picture.trimap
    errors = {
        name: sad(matte.alpha(*pixels, tile=tile), picture.alpha, picture.ternary_trimap)
        for name, tile in ((WHOLE, "off"), (TILED, "auto"))
    }
    timers = [
        lambda: {WHOLE: client.request(*pixels)[END_TO_END]},
        lambda: {TILED: client.default_request(*pixels)},
    ]
    return {
        "name": picture.name,
        "height": picture.trimap.shape[0],
        "width": picture.trimap.shape[1],
        "unknown": float(is_unknown(picture.trimap).mean()),
        "tiles": len(plan_tiles(picture.trimap)),
        "SAD": errors,
        "samples_ms": in_turns(timers, warmup=0, least=rounds, most=rounds),
    }


def render(record: dict) -> list[Section]:
    """Return a record's table and the law that its pictures follow."""
    rows = []
    for case in record["pictures"]:
        whole, tiled = (median(case["samples_ms"][name]) for name in (WHOLE, TILED))
        change = case["SAD"][TILED] / case["SAD"][WHOLE] - 1
        rows.append(
            {
                "picture": case["name"],
                "size": f"{case['height']}x{case['width']}",
                "unknown": f"{case['unknown']:.1%}",
                "whole, ms": f"{whole:.0f}",
                "tiles where they pay, ms": f"{tiled:.0f}",
                "times faster": f"{whole / tiled:.2f}",
                "SAD": f"{case['SAD'][WHOLE]:.2f}",
                "change of SAD": f"{change:+.2%}",
            }
        )
    points = laws(record["pictures"])
    if memory := record["memory_gib"]:
        height, width = max(
            ((case["height"], case["width"]) for case in record["pictures"]), key=math.prod
        )
        points.append(
            f"Memory of the server for {height}x{width}, at most: {memory[WHOLE]:.2f} GiB whole, "
            f"{memory[TILED]:.2f} GiB in tiles where they pay; {memory['ready']:.2f} GiB before."
        )
    return [rows, points]


def laws(cases: list[dict]) -> list[str]:
    """Return the medians over the pictures, and the time for a megapixel by unknown share."""
    times = np.array(
        [[median(case["samples_ms"][name]) for name in (WHOLE, TILED)] for case in cases]
    )
    errors = np.array([[case["SAD"][name] for name in (WHOLE, TILED)] for case in cases])
    change = errors[:, 1].mean() / errors[:, 0].mean() - 1
    points = [
        f"{np.median(times[:, 0] / times[:, 1]):.2f} times faster (median); "
        f"mean SAD changes by {change:+.2%}."
    ]
    unknown = np.array([case["unknown"] for case in cases])
    if len(cases) > 2:
        megapixels = np.array([case["height"] * case["width"] / 1e6 for case in cases])
        slope, intercept = np.polyfit(unknown, times[:, 1] / 1000 / megapixels, 1)
        points.append(
            f"Seconds for a megapixel: {intercept:.2f} + {slope:.2f} × unknown share in tiles, "
            f"{np.median(times[:, 0] / 1000 / megapixels):.2f} whole."
        )
    return points


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return {
        f"{case['name']}, {how}": values
        for case in record["pictures"]
        for how, values in case["samples_ms"].items()
    }
