"""Trimaps: H x W uint8, 0 background, 255 foreground, every other value (usually 128) unknown."""

import cv2
import numpy as np

BACKGROUND, UNKNOWN, FOREGROUND = 0, 128, 255

NEARLY_KNOWN = 16
"""`quantize` takes 1..16 as 0 and 239..254 as 255.

Measured on 20 trimaps saved as JPEG: at quality 90 and up each pixel comes back exactly; at quality
75, 0.15 % of the pixels stay unknown that were known, and no unknown pixel is lost.
"""
USUAL_UNKNOWN = 16
"""Values this close to 128 are a usual way to write unknown."""
MAX_OTHER_VALUES = 4
"""More distinct values than this, neither known nor near 128, and it is not a trimap."""
BRIGHTEST_UNKNOWN = 200
"""A trimap's brightest value, if above this, is meant as foreground: video's white is 235."""

MASK_BAND = 0.02
"""Default radius of `trimap_from_mask`."""


def check_trimap(trimap: np.ndarray) -> str | None:
    """Return why this is hardly a trimap (an alpha, a photo, a JPEG), in words; None if it is one.

    Parameters
    ----------
    trimap : ndarray, H x W uint8

    Returns
    -------
    str or None
        One line with the values found. `quantize` makes a trimap of it. Unknown pixels need not
        exist: see `has_unknown`.
    """
    found = np.flatnonzero(np.bincount(trimap.ravel(), minlength=256)[1:255]) + 1
    nearly = found[(found <= NEARLY_KNOWN) | (found >= FOREGROUND - NEARLY_KNOWN)]
    other = found[np.abs(found - UNKNOWN) > USUAL_UNKNOWN]
    expected = "expected 0 for background, 255 for foreground and 128 for unknown; quantize it"
    if other.size > MAX_OTHER_VALUES:
        return (
            f"looks like an alpha matte or a photo: {found.size} values between 0 and 255 "
            f"({_some(found)}); {expected}"
        )
    if BRIGHTEST_UNKNOWN < (brightest := trimap.max()) < FOREGROUND - NEARLY_KNOWN:
        return (
            f"its brightest value is {brightest}, but foreground is 255; stretch video levels "
            "(16 to 235) to 0 to 255, or, if that value is unknown, quantize it"
        )
    if nearly.size:
        return f"has values that are nearly 0 or 255 ({_some(nearly)}); {expected}"
    return None


def ternary(trimap: np.ndarray) -> np.ndarray:
    """Return a trimap with 128 for every unknown value, H x W uint8; the metrics know no other."""
    return np.where(is_unknown(trimap), np.uint8(UNKNOWN), trimap)


def quantize(trimap: np.ndarray) -> np.ndarray:
    """Make a trimap of 0, 128 and 255 from an alpha or a compressed trimap, H x W uint8.

    0..16 become 0, 239..255 become 255, everything between 128: see `NEARLY_KNOWN`.
    """
    values = np.full(256, UNKNOWN, np.uint8)
    values[: NEARLY_KNOWN + 1] = BACKGROUND
    values[FOREGROUND - NEARLY_KNOWN :] = FOREGROUND
    return cv2.LUT(trimap, values)


def is_unknown(trimap: np.ndarray) -> np.ndarray:
    """Say of each pixel, as bool, if it is neither 0 nor 255."""
    return (trimap != BACKGROUND) & (trimap != FOREGROUND)


def has_unknown(trimap: np.ndarray) -> bool:
    """Say if any pixel is neither 0 nor 255."""
    return bool(is_unknown(trimap).any())


def trimap_from_alpha(alpha: np.ndarray, erode: int, dilate: int) -> np.ndarray:
    """Make a trimap whose unknown band reaches over the soft edge of an alpha matte.

    Foreground is where the eroded alpha is 255, background where the dilated alpha is 0. This is
    mmediting's ``GenerateTrimap`` (mmedit/datasets/pipelines/matting_aug.py) for given kernels.

    Parameters
    ----------
    alpha : ndarray, H x W uint8
    erode, dilate : int
        Diameters of the elliptical kernels in pixels, from 1 (the alpha as it is). The time grows
        with their square: for wide bands on large pictures see `trimap_from_mask`.

    Returns
    -------
    ndarray, H x W uint8 of 0, 128 and 255
    """
    return _trimap(
        foreground=cv2.erode(alpha, _ellipse(erode)) == 255,
        background=cv2.dilate(alpha, _ellipse(dilate)) == 0,
    )


def trimap_from_mask(
    mask: np.ndarray, erode: float = MASK_BAND, dilate: float = MASK_BAND
) -> np.ndarray:
    """Make a trimap from a mask drawn by hand or made by a segmentation network.

    Unknown is the disc of the given radius around everything that is not foreground (`erode`) and
    around everything that is not background (`dilate`). Found by distance, not by kernels, so wide
    bands cost nothing more.

    Parameters
    ----------
    mask : ndarray, H x W bool, or uint8 in 0..255 (soft masks go through `quantize` first)
    erode, dilate : float
        Radii in pixels; below 1, shares of the object's size (the square root of its area), but
        at least a pixel. 0 is none.

    Returns
    -------
    ndarray, H x W uint8 of 0, 128 and 255

    Notes
    -----
    Why 2 %: on 37 photos, with coarse masks as of a segmentation network, mattes are best with it
    (SAD 6.23; 6.35 with 1 %, 6.49 with 3 %, 6.91 with 5 %), and never more than 1.43 times as wrong
    as with the best width for the photo. `python -m benchmarks masks`; the table is in
    docs/client.md.

    Narrower bands do well only as long as the mask is exact.
    """
    trimap = quantize(mask.astype(np.uint8) * 255 if mask.dtype == bool else mask)
    size = np.sqrt(np.count_nonzero(trimap))
    inside, outside = (
        max(1, radius * size) if 0 < radius < 1 else radius for radius in (erode, dilate)
    )
    return _trimap(
        foreground=_depth(trimap == FOREGROUND) > inside,
        background=_depth(trimap == BACKGROUND) > outside,
    )


def _trimap(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    trimap = np.full(foreground.shape, UNKNOWN, np.uint8)
    trimap[foreground] = FOREGROUND
    trimap[background] = BACKGROUND
    return trimap


def _ellipse(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest one outside the region; the border is no outside."""
    return cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _some(values: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return shown + (", ..." if values.size > 8 else "")
