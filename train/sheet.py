"""Contact sheets: rows of pictures to look at."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

CELL = 256
"""Pictures are scaled into squares of so many pixels."""
COLUMNS = ("image", "trimap", "alpha", "truth", "error")
"""Of `matte_row`."""
GREY, INK = 64, (255, 255, 255)


def matte_row(
    image: np.ndarray, trimap: np.ndarray, alpha: np.ndarray, truth: np.ndarray, label: str
) -> np.ndarray:
    """Draw one row: image, trimap, alpha, truth and their difference; see `sheet_row`."""
    return sheet_row((image, trimap, alpha, truth, cv2.absdiff(alpha, truth)), label)


def sheet_row(pictures: Sequence[np.ndarray], label: str) -> np.ndarray:
    """Draw N pictures, H×W×3 or H×W uint8, side by side: CELL × N CELL × 3 uint8 RGB."""
    row = np.concatenate([into_cell(picture) for picture in pictures], axis=1)
    return write(row, label, CELL - 8)


def contact_sheet(rows: Iterable[np.ndarray], columns: Sequence[str] = COLUMNS) -> np.ndarray:
    """Stack rows of `sheet_row` below the names of their columns."""
    head = np.full((28, CELL * len(columns), 3), GREY, np.uint8)
    for column, name in enumerate(columns):
        head = write(head, name, 20, left=column * CELL + 8)
    return np.concatenate([head, *rows])


def into_cell(picture: np.ndarray) -> np.ndarray:
    """Scale a picture into the middle of a grey square; a whole multiple keeps pixels sharp."""
    scale = CELL / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    cell = np.full((CELL, CELL, 3), GREY, np.uint8)
    top, left = (CELL - height) // 2, (CELL - width) // 2
    cell[top : top + height, left : left + width] = np.atleast_3d(scaled)
    return cell


def write(picture: np.ndarray, text: str, baseline: int, left: int = 8) -> np.ndarray:
    """Write text with a dark outline into a copy."""
    picture = picture.copy()
    for colour, thickness in (((0, 0, 0), 3), (INK, 1)):
        where = (left, baseline)
        cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness)
    return picture
