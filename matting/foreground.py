"""Foreground colours without the halo of the old background."""

import cv2
import numpy as np

# Box sizes of the two passes, in pixels, as published.
FAR, NEAR = 90, 6
_TINY = np.float32(1e-5)


def estimate_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground's own colours by blur fusion, in two passes.

    A first guess of both layers is their alpha-weighted local mean. The foreground is then moved so
    that guess and alpha explain the image. A second pass with a small box starts from the first.

    Parameters
    ----------
    image : ndarray, H x W x 3 uint8 RGB
    alpha : ndarray, H x W uint8

    Returns
    -------
    ndarray, H x W x 3 uint8 RGB
        Equal to the image where alpha is 255. Where alpha is 0 a smooth continuation near the
        object, black far from it.

    Notes
    -----
    Measured on 29 composites of known foregrounds, error of the colours weighted with alpha, in the
    unknown region, 0..255: 6.3 (the image as it is: 17.7; pymatting's multi-level solver, 2.7 times
    slower: 4.5).

    References
    ----------
    M. Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021.
    """
    weight = alpha.astype(np.float32) / 255
    foreground = np.empty_like(image)
    for channel in range(3):  # one at a time: a third of the memory
        plane = image[..., channel].astype(np.float32)
        far, behind = _blur_fusion(plane, plane, plane, weight, FAR)
        near, _ = _blur_fusion(plane, far, behind, weight, NEAR)
        foreground[..., channel] = np.rint(near)
    foreground[alpha == 255] = image[alpha == 255]
    return foreground


def _blur_fusion(
    image: np.ndarray, foreground: np.ndarray, background: np.ndarray, alpha: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """One pass on H x W float32: the foreground in 0..255, and the blurred background."""
    box = (size, size)
    coverage = cv2.blur(alpha, box)
    blurred_foreground = cv2.blur(foreground * alpha, box) / (coverage + _TINY)
    blurred_background = cv2.blur(background * (1 - alpha), box) / (1 - coverage + _TINY)
    residual = image - alpha * blurred_foreground - (1 - alpha) * blurred_background
    return np.clip(blurred_foreground + alpha * residual, 0, 255), blurred_background
