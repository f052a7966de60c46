"""What the page draws: trimaps from strokes of a brush, and views of photos that fit a screen."""

from collections.abc import Iterable

import cv2
import numpy as np

from matting.trimaps import BACKGROUND, FOREGROUND, UNKNOWN

BRUSHES = {FOREGROUND: (0, 114, 178), UNKNOWN: (240, 228, 66), BACKGROUND: (213, 94, 0)}
"""RGB of the brush for each value of a trimap.

Blue, yellow and vermilion of Okabe and Ito, which colour-blind people can tell apart. A mixture of
two, as along the edge of a stroke over another, is always nearest to one of these two.
"""
TINTED = 0.5


def paint_trimap(trimap: np.ndarray, layers: Iterable[np.ndarray]) -> np.ndarray:
    """Paint strokes over a trimap.

    Parameters
    ----------
    trimap : ndarray, H x W uint8
    layers : iterable of ndarray, h x w x 4 RGBA uint8
        Of any size, scaled to the trimap's; later ones lie over earlier ones. What is half
        transparent or more paints nothing; all else is the brush of the nearest colour.

    Returns
    -------
    ndarray, H x W uint8
    """
    painted = trimap.copy()
    values, colours = np.array(list(BRUSHES), np.uint8), np.array(list(BRUSHES.values()))
    height, width = trimap.shape
    for layer in layers:
        scaled = cv2.resize(layer, (width, height), interpolation=cv2.INTER_NEAREST)
        stroked = scaled[..., 3] > 127
        strokes = scaled[stroked][:, np.newaxis, :3].astype(int)
        painted[stroked] = values[((strokes - colours) ** 2).sum(axis=2).argmin(axis=1)]
    return painted


def tint(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Lay the brushes' colours half over a photo where its trimap is foreground or unknown.

    Takes and returns H x W x 3 uint8 RGB; the trimap is H x W uint8.
    """
    tinted = image.copy()
    for value, is_here in (
        (FOREGROUND, trimap == FOREGROUND),
        (UNKNOWN, (trimap != FOREGROUND) & (trimap != BACKGROUND)),
    ):
        mixed = (1 - TINTED) * image[is_here] + TINTED * np.array(BRUSHES[value])
        tinted[is_here] = np.rint(mixed)
    return tinted


def shrink(pixels: np.ndarray, longest: int, method: int = cv2.INTER_AREA) -> np.ndarray:
    """Scale a picture down until no side is longer; one that is small enough stays as it is.

    Takes and returns H x W or H x W x C; a trimap asks for the `method` INTER_NEAREST.
    """
    scale = longest / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=method)
