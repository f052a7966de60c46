"""Putting a foreground on another background: alpha * foreground + (1 - alpha) * background."""

from math import ceil

import cv2
import numpy as np

from matting.images import MAX_PIXELS, to_depth

BESIDE = 3
"""Pixels beside a part of a picture that its scaling looks at, and one to spare."""


def composite(alpha: np.ndarray, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Lay a foreground over a background of the same size.

    Parameters
    ----------
    alpha : ndarray, H x W uint8
    foreground, background : ndarray, H x W x 3 RGB, uint8 or uint16
        The foreground's colours are its own, not mixed with its old background: see
        `matting.foreground.estimate_foreground`.

    Returns
    -------
    ndarray, H x W x 3 RGB, as deep as the foreground
        Rounded to the nearest integer, in integer arithmetic: alpha 0 and 255 copy exactly.

    Raises
    ------
    ValueError
        The sizes differ.
    """
    if not alpha.shape == foreground.shape[:2] == background.shape[:2]:
        raise ValueError(
            f"sizes differ: alpha {alpha.shape}, foreground {foreground.shape[:2]}, "
            f"background {background.shape[:2]}; see fit_background"
        )
    depth = foreground.dtype.type
    background = to_depth(background, depth)
    # At most 255 * 255 + 127 fits 16 bits. 255 is odd, so no sum lies half-way.
    wide = np.uint16 if depth == np.uint8 else np.uint32
    weight: np.ndarray = alpha[..., None].astype(wide)
    return ((weight * foreground + (255 - weight) * background + 127) // 255).astype(depth)


def fit_background(background: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture until it covers height x width, keeping its proportions; crop to the centre.

    Takes and returns uint8 or uint16, H x W x 3.
    """
    rows, columns = background.shape[:2]
    scale = max(height / rows, width / columns)
    if rows * scale * columns * scale > MAX_PIXELS:  # of a strip, most is cropped
        background = background[_middle(rows, height / scale), _middle(columns, width / scale)]
        rows, columns = background.shape[:2]
    size = max(width, round(columns * scale)), max(height, round(rows * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(background, size, interpolation=method)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return scaled[top : top + height, left : left + width].copy()


def _middle(length: int, needed: float) -> slice:
    cut = max(0, (length - ceil(needed)) // 2 - BESIDE)  # the same on both sides
    return slice(cut, length - cut)


def checkerboard(height: int, width: int) -> np.ndarray:
    """Return the light grey checkerboard that stands for transparency, H x W x 3 uint8."""
    rows, columns = np.arange(height) // 16, np.arange(width) // 16
    odd = (rows[:, None] + columns) % 2
    return np.repeat(np.where(odd, 204, 255).astype(np.uint8)[..., None], 3, axis=2)


def cutout(foreground: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Join H x W x 3 RGB and H x W alpha to H x W x 4 RGBA, not premultiplied.

    Alpha is uint8, the foreground uint8 or uint16; the result is as deep as the foreground.
    """
    return np.dstack([foreground, to_depth(alpha, foreground.dtype.type)])
