"""What it brings to matte a photo mirrored and upside down, too, and to take the mean (--views).

Every picture is matted by a server from one, two and four views, in tiles where they pay.
"""

import argparse

import numpy as np
from tqdm import tqdm

from benchmarks.load import TIMEOUT
from benchmarks.measure import Samples, Timer, in_turns, median, stopwatch
from benchmarks.service import add_pictures_argument, add_server_arguments, serving, what_serves
from benchmarks.tables import Section
from client.connection import Matte
from client.views import VIEWS
from export.parity import Picture, means, read_pictures
from matting.metrics import evaluate
from train.layouts import evenly

QUICK = "one picture, one round"
EXAMPLES = """examples:
  python -m benchmarks views
  python -m benchmarks views --data photographs --pictures 12
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    add_pictures_argument(parser)
    parser.add_argument("--pictures", type=int, metavar="N", help="so many, evenly chosen (all)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: metrics and times of every picture by its number of views."""
    rounds = 1 if options.quick else options.rounds
    count = 1 if options.quick else options.pictures
    pictures = evenly(list(read_pictures(options.data)), count)
    with (
        serving(options.repository, options.url) as url,
        Matte(url, timeout=TIMEOUT) as matte,
    ):
        served = what_serves(url)
        cases = [
            measure_picture(matte, picture, rounds)
            for picture in tqdm(pictures, unit="picture", disable=None)
        ]
    return {"engine": served.engine, "precision": served.precision, "pictures": cases}


def measure_picture(matte: Matte, picture: Picture, rounds: int) -> dict:
    """Judge one picture by the four metrics, which warms up, and then time it."""
    pixels = picture.image, picture.trimap

    def timer(views: int) -> Timer:
        return stopwatch(str(views), lambda: matte.alpha(*pixels, views=views))

    metrics = {
        str(views): evaluate(
            matte.alpha(*pixels, views=views), picture.alpha, picture.ternary_trimap
        )
        for views in VIEWS
    }
    samples = in_turns([timer(n) for n in VIEWS], warmup=0, least=rounds, most=rounds)
    return {"name": picture.name, "metrics": metrics, "samples_ms": samples}


def render(record: dict) -> list[Section]:
    """Return a record's table: means over the pictures, and the medians of their times' ratios."""
    cases = record["pictures"]
    found = {n: means([case["metrics"][n] for case in cases]) for n in cases[0]["metrics"]}
    rows = []
    for views, metrics in found.items():
        times = [median(c["samples_ms"][views]) / median(c["samples_ms"]["1"]) for c in cases]
        row = {"--views": views, "time": f"{np.median(times):.2f}×"}
        for metric, form in (("SAD", ".2f"), ("MSE", ".4f"), ("GRAD", ".2f"), ("CONN", ".2f")):
            change = metrics[metric] / found["1"][metric] - 1
            row[metric] = f"{metrics[metric]:{form}}" + (f" ({change:+.1%})" * (views != "1"))
        better = sum(c["metrics"][views]["SAD"] < c["metrics"]["1"]["SAD"] for c in cases)
        row["better in SAD"] = "–" if views == "1" else f"{better} of {len(cases)}"
        rows.append(row)
    return [rows, f"Means over {len(cases)} pictures."]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return {
        f"{case['name']}, {views} views": values
        for case in record["pictures"]
        for views, values in case["samples_ms"].items()
    }
