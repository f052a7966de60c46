"""A picture of the places where exported forms of a network are furthest from it."""

import cv2
import numpy as np

from export.parity import Picture

SIDE = 64
"""Pixels of the picture that a crop shows, each way."""

SCALE = 3
CROPS = 5
GAP = 8
HEADING = 22


def draw_worst(
    pictures: list[Picture], reference: list[np.ndarray], exported: dict[str, list[np.ndarray]]
) -> bytes:
    """Return a PNG with a row per exported form: the crop around its largest difference.

    A row shows image, trimap, the reference's alpha, the exported alpha, and their difference
    times the factor that makes the largest one as white as it can be.

    Parameters
    ----------
    pictures, reference : list
        Pictures and the reference's alphas, H×W uint8.
    exported : dict
        By the form's name, its alphas.
    """
    rows = [with_heading("image, trimap, reference, exported, difference", [])]
    for name, alphas in exported.items():
        differences = [cv2.absdiff(a, b) for a, b in zip(reference, alphas, strict=True)]
        index = int(np.argmax([difference.max() for difference in differences]))
        picture, difference = pictures[index], differences[index]
        y, x = np.unravel_index(difference.argmax(), difference.shape)
        factor = 255 // max(difference[y, x], 1)
        tiles = (picture.image, picture.trimap, reference[index], alphas[index])
        crops = [crop(tile, y, x) for tile in (*tiles, difference * factor)]
        found = f"{difference[y, x]}/255, shown x {factor}"
        rows.append(with_heading(f"{name}: {picture.name}, x {x}, y {y}: {found}", crops))
    sheet = np.vstack(rows)
    return cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()


def crop(pixels: np.ndarray, y: int, x: int) -> np.ndarray:
    """Return the surroundings of a place, enlarged, as RGB; grey beyond the picture's edge."""
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    half = SIDE // 2
    padded = cv2.copyMakeBorder(
        pixels, half, half, half, half, cv2.BORDER_CONSTANT, value=(64, 64, 64)
    )
    place = padded[y : y + SIDE, x : x + SIDE]
    return cv2.resize(place, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)


def with_heading(title: str, crops: list[np.ndarray]) -> np.ndarray:
    """Return crops side by side on white, a line of text above."""
    side = SIDE * SCALE
    height = HEADING + (side + GAP if crops else 0)
    canvas = np.full((height, CROPS * (side + GAP), 3), 255, np.uint8)
    for i, tile in enumerate(crops):
        left = i * (side + GAP)
        canvas[HEADING : HEADING + side, left : left + side] = tile
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(canvas, title, (2, HEADING - 6), font, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
