"""What the client's options for better edges bring: several views (--views), neighbours (--knn).

Every picture is matted by a server in each of these ways, in tiles where they pay.
"""

import argparse
from dataclasses import asdict

import numpy as np
from tqdm import tqdm

from benchmarks.load import TIMEOUT
from benchmarks.measure import Samples, Timer, how_often, in_turns, median, samples_of, stopwatch
from benchmarks.service import add_server_arguments, serving, what_serves
from benchmarks.tables import Section
from client.arguments import positive
from client.connection import Matte
from export.parity import Picture, add_pictures_argument, means, read_pictures
from matting.metrics import evaluate
from train.layouts import evenly

QUICK = "one picture, one round"
EXAMPLES = """examples:
  python -m benchmarks edges
  python -m benchmarks edges --data photographs --pictures 12
"""


PLAIN = "none"
WAYS: dict[str, dict] = {
    PLAIN: {},
    "--views 2": {"views": 2},
    "--views 4": {"views": 4},
    "--knn": {"knn": True},
    "--views 4 --knn": {"views": 4, "knn": True},
}
"""What the client is told."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    add_pictures_argument(parser)
    parser.add_argument(
        "--pictures", type=positive(int), metavar="N", help="how many, evenly chosen (all)"
    )
    parser.add_argument("--rounds", type=positive(int), default=3, help="how many (%(default)s)")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: metrics and times of every picture by the way it was matted."""
    rounds = 1 if options.quick else options.rounds
    count = 1 if options.quick else options.pictures
    pictures = evenly(list(read_pictures(options.data)), count)
    with (
        serving(options.repository, options.url) as url,
        Matte(url, timeout=TIMEOUT) as matte,
    ):
        served = what_serves(url, options.repository)
        cases = [
            measure_picture(matte, picture, rounds)
            for picture in tqdm(pictures, unit="picture", disable=None)
        ]
    return {**asdict(served), "pictures": cases}


def measure_picture(matte: Matte, picture: Picture, rounds: int) -> dict:
    """Matte one picture in every way, timed; judge the alphas by the four metrics."""
    alphas = {}

    def timer(name: str) -> Timer:
        def mat() -> None:
            alphas[name] = matte.alpha(picture.image, picture.trimap, **WAYS[name])

        return stopwatch(name, mat)

    matte.alpha(picture.image, picture.trimap, knn=True)  # warms up
    samples = in_turns([timer(name) for name in WAYS], warmup=0, least=rounds, most=rounds)
    metrics = {
        name: evaluate(alpha, picture.alpha, picture.ternary_trimap)
        for name, alpha in alphas.items()
    }
    return {"name": picture.name, "metrics": metrics, "samples_ms": samples}


def render(record: dict) -> list[Section]:
    """Return a record's table: means over the pictures, and the medians of their times' ratios."""
    cases = record["pictures"]
    found = {way: means([c["metrics"][way] for c in cases]) for way in cases[0]["metrics"]}
    rows = []
    for way, metrics in found.items():
        times = [median(c["samples_ms"][way]) / median(c["samples_ms"][PLAIN]) for c in cases]
        row = {"options": way, "time": f"{np.median(times):.2f}×"}
        for metric, form in (("SAD", ".2f"), ("MSE", ".4f"), ("GRAD", ".2f"), ("CONN", ".2f")):
            change = metrics[metric] / found[PLAIN][metric] - 1
            row[metric] = f"{metrics[metric]:{form}}" + (f" ({change:+.1%})" * (way != PLAIN))
        better = sum(c["metrics"][way]["SAD"] < c["metrics"][PLAIN]["SAD"] for c in cases)
        row["better in SAD"] = "–" if way == PLAIN else f"{better} of {len(cases)}"
        rows.append(row)
    timed = how_often([len(case["samples_ms"][PLAIN]) for case in cases])
    return [rows, f"Means over {len(cases)} pictures; {timed}."]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return samples_of(record["pictures"], "name")
