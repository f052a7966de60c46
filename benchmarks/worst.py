"""A picture of the places where exported forms of a network are furthest from it."""

import cv2
import numpy as np

from export.parity import Picture
from train.sheet import GREY, contact_sheet, sheet_row

SIDE = 64
"""Pixels of the picture that a crop shows, each way."""

COLUMNS = ("image", "trimap", "reference", "exported", "difference")


def draw_worst(
    pictures: list[Picture], reference: list[np.ndarray], exported: dict[str, list[np.ndarray]]
) -> np.ndarray:
    """Return a sheet, RGB, with a row per exported form: the crop around its largest difference.

    The difference is shown times the factor that makes the largest one as white as it can be.

    Parameters
    ----------
    pictures, reference : list
        Pictures and the reference's alphas, H×W uint8.
    exported : dict
        By the form's name, its alphas.
    """
    rows = []
    for name, alphas in exported.items():
        differences = [cv2.absdiff(a, b) for a, b in zip(reference, alphas, strict=True)]
        index = int(np.argmax([difference.max() for difference in differences]))
        picture, difference = pictures[index], differences[index]
        y, x = np.unravel_index(difference.argmax(), difference.shape)
        factor = 255 // max(difference[y, x], 1)
        shown = (picture.image, picture.trimap, reference[index], alphas[index])
        crops = [crop(pixels, y, x) for pixels in (*shown, difference * factor)]
        found = f"{difference[y, x]}/255, shown x {factor}"
        rows.append(sheet_row(crops, f"{name}: {picture.name}, x {x}, y {y}: {found}"))
    return contact_sheet(rows, COLUMNS)


def crop(pixels: np.ndarray, y: int, x: int) -> np.ndarray:
    """Return the surroundings of a place, grey beyond the picture's edge."""
    half = SIDE // 2
    padded = cv2.copyMakeBorder(
        pixels, half, half, half, half, cv2.BORDER_CONSTANT, value=(GREY,) * 3
    )
    return padded[y : y + SIDE, x : x + SIDE]
