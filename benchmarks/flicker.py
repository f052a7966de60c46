"""How much mattes of a video flicker, since every frame is a photo of its own.

In each clip a cut-out of the project moves over a photograph; the truth moves with it. Flicker is
dtSSD: how far alpha's change from frame to frame is from the truth's. Beside it stands the error of
single frames: if these errors were independent, flicker would be 1.41 times as much.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.masks import coarse_mask
from benchmarks.measure import Samples
from benchmarks.service import (
    add_server_arguments,
    demo_image,
    serving,
    what_serves,
)
from benchmarks.tables import Section
from client.connection import Matte
from export.parity import Picture, add_pictures_argument, read_pictures
from matting.compositing import composite, fit_background
from matting.foreground import estimate_foreground
from matting.metrics import flicker
from matting.trimaps import MASK_BAND, trimap_from_mask

QUICK = "one clip of two frames"
EXAMPLES = "example: python -m benchmarks flicker"
FRAMES = 10
MOTION = (3, 2)
"""Pixels to the right and down from frame to frame."""


class Way(NamedTuple):
    """How a clip is matted: what the client is told, and the trimaps.

    `band` is half the width of the unknown band around a coarse mask, as a share of the object's
    size, drawn uniformly for each frame; without one the frame's own trimap is used.
    """

    told: dict
    band: tuple[float, float] | None = None


WAYS = {
    "moves with the object": Way({}),
    "moves with the object; `--views 4`": Way({"views": 4}),
    "moves with the object; `--knn`": Way({"knn": True}),
    "of a coarse mask": Way({}, band=(MASK_BAND, MASK_BAND)),
    "of a coarse mask, 3 % wide": Way({}, band=(0.03, 0.03)),
    "of a coarse mask, 1 to 5 % wide at random": Way({}, band=(0.01, 0.05)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    add_pictures_argument(parser)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: flicker and mean error of every clip matted in every way."""
    pictures = list(read_pictures(options.data))[: 1 if options.quick else None]
    clips = []
    with serving(options.repository, options.url) as url, Matte(url) as matte:
        served = what_serves(url, options.repository)
        for picture in tqdm(pictures, unit="clip", disable=None):
            frames = list(make_clip(picture, 2 if options.quick else FRAMES))
            height, width = picture.trimap.shape
            found = {name: judge(matte, frames, way) for name, way in WAYS.items()}
            clips.append({"name": picture.name, "height": height, "width": width, "ways": found})
    return {**asdict(served), "frames": len(frames), "clips": clips}


def make_clip(picture: Picture, frames: int) -> Iterator[Picture]:
    """Yield the frames: the picture's subject on the demo's background, further on in each."""
    height, width = picture.alpha.shape
    background = fit_background(demo_image("background"), height, width)
    foreground = estimate_foreground(picture.image, picture.alpha)
    layers = foreground, picture.alpha, picture.trimap
    for number in range(frames):
        motion = np.float32([[1, 0, number * MOTION[0]], [0, 1, number * MOTION[1]]])
        colours, alpha, trimap = (
            cv2.warpAffine(layer, motion, (width, height), borderMode=cv2.BORDER_REPLICATE)
            for layer in layers
        )
        yield Picture(f"{number}", composite(alpha, colours, background), trimap, alpha)


def judge(matte: Matte, frames: list[Picture], way: Way) -> dict[str, float]:
    """Return a clip's flicker, and the root of its frames' mean squared error, times 100."""
    truths = [frame.alpha for frame in frames]
    random = np.random.default_rng(0)
    alphas = [
        matte.alpha(frame.image, trimap_of(frame, way, random), **way.told) for frame in frames
    ]
    errors = [cv2.norm(*pair, cv2.NORM_L2) for pair in zip(alphas, truths, strict=True)]
    return {
        "flicker": flicker(alphas, truths),
        "error": float(np.mean(errors)) / truths[0].size ** 0.5 / 255 * 100,
    }


def trimap_of(frame: Picture, way: Way, random: np.random.Generator) -> np.ndarray:
    """Return a frame's trimap, H×W uint8."""
    if way.band is None:
        return frame.trimap
    width = random.uniform(*way.band)
    return trimap_from_mask(coarse_mask(frame.alpha), width, width)


def render(record: dict) -> list[Section]:
    """Return a record's table: means over the clips."""
    rows = []
    for way in record["clips"][0]["ways"]:
        found, error = (
            float(np.mean([clip["ways"][way][what] for clip in record["clips"]]))
            for what in ("flicker", "error")
        )
        rows.append(
            {
                "trimap of each frame": way,
                "flicker (dtSSD)": f"{found:.2f}",
                "error of a frame (RMSE × 100)": f"{error:.2f}",
                "flicker / error": f"{found / error:.2f}",
            }
        )
    clips = len(record["clips"])
    return [rows, f"Means over {clips} clips of {record['frames']} frames."]


def samples(record: dict) -> Samples:
    """Return nothing: quality takes no time."""
    return {}
