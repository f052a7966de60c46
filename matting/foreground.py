"""Foreground colours without the halo of the old background."""

import cv2
import numpy as np

BOXES = (270, 90, 30, 10, 4)
"""Side of the blur in each pass, in pixels. The paper has two passes, 90 and 6."""
_TINY = np.float32(1e-5)


def estimate_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground's own colours by blur fusion, from coarse to fine.

    In each pass a guess of both layers is their local mean, weighted with alpha and 1 - alpha. Then
    both are moved by the least amount that makes them and alpha explain the image. The paper makes
    two passes and moves the foreground only, by less.

    Parameters
    ----------
    image : ndarray, H x W x 3 RGB, uint8 or uint16
    alpha : ndarray, H x W uint8

    Returns
    -------
    ndarray, H x W x 3 RGB, as deep as the image
        Equal to the image where alpha is 255. Where alpha is 0 a smooth continuation, so that
        a cut-out can be scaled without a dark rim.

    Notes
    -----
    Measured on 39 composites of known foregrounds (hair, fur, things): mean error of the colours
    in the unknown region, weighted with alpha, in 0..255. The image as it is: 19.3; the paper's two
    passes: 6.7; this without the pass of 270: 3.9; pymatting's multi-level solver: 4.7. That pass
    is for loose hair in large photos, and changes next to nothing in small ones: for drawn hair
    at full HD it brings 24 to 16, where the solver has 14 (`python -m benchmarks foreground`).
    Edges that stay soft over more than the largest box keep some of the old background.

    References
    ----------
    M. Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021.
    """
    weight = alpha.astype(np.float32) / 255
    estimate = np.empty_like(image)
    white = np.float32(np.iinfo(image.dtype).max)
    for channel in range(3):  # one at a time: a third of the memory
        plane = image[..., channel].astype(np.float32)
        foreground = background = plane
        for box in BOXES:
            foreground, background = _blur_fusion(plane, foreground, background, weight, box, white)
        estimate[..., channel] = np.rint(foreground)
    opaque = alpha == 255
    estimate[opaque] = image[opaque]
    return estimate


def _blur_fusion(
    image: np.ndarray,
    foreground: np.ndarray,
    background: np.ndarray,
    alpha: np.ndarray,
    box: int,
    white: np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Refine both layers once: H x W float32, colours in 0..white, alpha in 0..1."""
    rest = 1 - alpha
    foreground = _local_mean(foreground, alpha, box)
    background = _local_mean(background, rest, box)
    # The nearest point to this guess on the line alpha * foreground + rest * background = image.
    step = (image - alpha * foreground - rest * background) / (alpha**2 + rest**2)
    return (
        np.clip(foreground + alpha * step, 0, white),
        np.clip(background + rest * step, 0, white),
    )


def _local_mean(layer: np.ndarray, weight: np.ndarray, box: int) -> np.ndarray:
    weight = weight + _TINY  # where a layer is nowhere near, its last guess continues
    return cv2.blur(layer * weight, (box, box)) / cv2.blur(weight, (box, box))
