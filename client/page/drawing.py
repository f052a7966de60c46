"""What the page draws: trimaps from strokes of a brush or shapes, and views that fit a screen."""

import re
from collections.abc import Iterable

import cv2
import numpy as np

from matting.trimaps import BACKGROUND, FOREGROUND, UNKNOWN, is_unknown

BRUSHES = {FOREGROUND: (0, 114, 178), UNKNOWN: (240, 228, 66), BACKGROUND: (213, 94, 0)}
"""RGB of the brush for each value of a trimap.

Blue, yellow and vermilion of Okabe and Ito, which colour-blind people can tell apart. A mixture of
two, as along the edge of a stroke over another, is always nearest to one of these two.
"""
KINDS = {"subject": FOREGROUND, "edges": UNKNOWN, "background": BACKGROUND}
"""What each brush is called."""
SHAPE = re.compile(rf"({'|'.join(KINDS)})((?:\s+-?\d{{1,3}}(?:\.\d+)?){{4}})")
MAX_SHAPES = 100
"""More would keep the page busy for seconds."""
TINTED = 0.5


class ShapeError(ValueError):
    """A line of text is no shape, or there are too many. The message says which and why."""


def draw_shapes(text: str, height: int, width: int) -> np.ndarray:
    """Draw ellipses with the brushes, for those who cannot use a mouse.

    Parameters
    ----------
    text : str
        One shape a line, the later ones over the earlier: its kind, then its left, top, right and
        bottom in per cent of the picture, as in ``edges 20 10 80 95``. It may reach beyond the
        picture.
    height, width : int

    Returns
    -------
    ndarray, height x width x 4 RGBA uint8
        A layer for `paint_trimap`.

    Raises
    ------
    ShapeError
        A line is something else, or there are more than `MAX_SHAPES`.
    """
    brushes = [(*BRUSHES[value], 255) for value in KINDS.values()]
    colours = np.array([(0, 0, 0, 0), *brushes], np.uint8)
    drawn = np.zeros((height, width), np.uint8)
    x, y = (100 * (np.arange(side) + 0.5) / side for side in (width, height))
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > MAX_SHAPES:
        raise ShapeError(f"these are {len(lines)} shapes; expected at most {MAX_SHAPES}")
    for number, line in lines:
        shape = SHAPE.fullmatch(line.strip().lower())
        left, top, right, bottom = map(float, shape[2].split()) if shape else (0, 0, 0, 0)
        if not shape or left >= right or top >= bottom:
            raise ShapeError(
                f"line {number} of the shapes is {line.strip()!r}; expected {', '.join(KINDS)}, "
                "then left, top, right and bottom in per cent, such as: edges 20 10 80 95"
            )
        across = (2 * x - left - right) / (right - left)
        down = (2 * y - top - bottom) / (bottom - top)
        inside = across**2 + down[:, np.newaxis] ** 2 <= 1
        drawn[inside] = 1 + list(KINDS).index(shape[1])
    return colours[drawn]


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
    for value, is_here in ((FOREGROUND, trimap == FOREGROUND), (UNKNOWN, is_unknown(trimap))):
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


def css_colour(colour: Iterable[int]) -> str:
    """Write red, green and blue, each 0 to 255, as #rrggbb."""
    return "#" + bytes(colour).hex()
