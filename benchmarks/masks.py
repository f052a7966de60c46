"""How wide the unknown band around a mask should be: the mattes, beside those of given trimaps.

Masks are made from the true alphas: exact ones (alpha above 127), and coarse ones, like those of a
network that sees 8 x 8 pixels as one. SAD is over the whole picture, so it includes what a narrow
band misses.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.measure import Samples
from benchmarks.service import add_server_arguments, serving, what_serves
from benchmarks.tables import Section
from client.arguments import positive
from client.connection import Matte
from export.parity import Picture, add_pictures_argument, read_pictures
from matting.images import ImageError
from matting.metrics import sad
from matting.trimaps import UNKNOWN, is_unknown, trimap_from_mask
from train.layouts import evenly

QUICK = "one picture, one width"
EXAMPLES = """examples:
  python -m benchmarks masks
  python -m benchmarks masks --data photographs --megapixels 0.5 --pictures 12
"""
RADII = (0.01, 0.02, 0.03, 0.05, 0.08)
"""Shares of the object's size."""
EXACT, COARSE, GIVEN = "exact", "coarse", "given"
CELL = 8
"""Pixels on a side of what a coarse mask's network sees as one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    add_pictures_argument(parser)
    parser.add_argument(
        "--megapixels", type=float, metavar="N", help="only pictures of at most this size (all)"
    )
    parser.add_argument(
        "--pictures", type=positive(int), metavar="N", help="how many, evenly chosen (all)"
    )


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: of every picture, what each trimap leaves unknown, and misses, and gives."""
    largest = float("inf") if options.megapixels is None else options.megapixels * 1e6
    pictures = [p for p in read_pictures(options.data) if p.trimap.size <= largest]
    if not pictures:
        raise ImageError(f"{options.data}: no picture has {options.megapixels} megapixels or less")
    pictures = evenly(pictures, 1 if options.quick else options.pictures)
    radii = RADII[-1:] if options.quick else RADII
    cases = []
    with serving(options.repository, options.url) as url, Matte(url) as matte:
        served = what_serves(url, options.repository)
        for picture in tqdm(pictures, unit="picture", disable=None):
            found = [
                {"mask": mask, "radius": radius} | judge(matte, picture, trimap)
                for mask, radius, trimap in trimaps(picture, radii)
            ]
            height, width = picture.trimap.shape
            cases.append({"name": picture.name, "height": height, "width": width, "trimaps": found})
    return {**asdict(served), "pictures": cases}


def trimaps(
    picture: Picture, radii: tuple[float, ...]
) -> Iterator[tuple[str, float | None, np.ndarray]]:
    """Yield the given trimap and those made from masks, with the mask's kind and the radius."""
    yield GIVEN, None, picture.trimap
    masks = {EXACT: picture.alpha > 127, COARSE: coarse_mask(picture.alpha)}
    for radius in radii:
        for kind, mask in masks.items():
            yield kind, radius, trimap_from_mask(mask, radius, radius)


def coarse_mask(alpha: np.ndarray) -> np.ndarray:
    """Return H×W bool: the alpha above one half as a network with coarse cells sees it."""
    height, width = alpha.shape
    cells = max(1, width // CELL), max(1, height // CELL)
    small = cv2.resize(alpha, cells, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) > 127


def judge(matte: Matte, picture: Picture, trimap: np.ndarray) -> dict[str, float]:
    """Return the unknown share, the SAD of what is known wrongly, and that of the whole matte."""
    unknown = is_unknown(trimap)
    everywhere = np.full_like(trimap, UNKNOWN)
    return {
        "unknown": float(unknown.mean()),
        "missed": sad(np.where(unknown, picture.alpha, trimap), picture.alpha, everywhere),
        "SAD": sad(matte.alpha(picture.image, trimap), picture.alpha, everywhere),
    }


def render(record: dict) -> list[Section]:
    """Return a record's table: means over the pictures."""
    found = [trimap for case in record["pictures"] for trimap in case["trimaps"]]

    def mean(mask: str, radius: float | None, what: str) -> float:
        values = [t[what] for t in found if (t["mask"], t["radius"]) == (mask, radius)]
        return float(np.mean(values))

    rows = []
    for radius in sorted({t["radius"] for t in found if t["radius"] is not None}):
        row = {"trimap": f"{radius:.0%} around a mask"}
        row["unknown"] = f"{mean(EXACT, radius, 'unknown'):.0%}"
        for mask in (EXACT, COARSE):
            row[f"SAD, {mask} masks"] = f"{mean(mask, radius, 'SAD'):.2f}"
            row[f"of it missed, {mask}"] = f"{mean(mask, radius, 'missed'):.2f}"
        rows.append(row)
    given = dict.fromkeys(rows[0], "–") | {
        "trimap": "given",
        "unknown": f"{mean(GIVEN, None, 'unknown'):.0%}",
        f"SAD, {EXACT} masks": f"{mean(GIVEN, None, 'SAD'):.2f}",
        f"of it missed, {EXACT}": f"{mean(GIVEN, None, 'missed'):.2f}",
    }
    return [[*rows, given], f"Means over {len(record['pictures'])} pictures."]


def samples(record: dict) -> Samples:
    """Return nothing: quality takes no time."""
    return {}
