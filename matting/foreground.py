"""Foreground colours without the halo of the old background."""

import cv2
import numpy as np

SCALE = 4
COARSE = (90, 64, 45, 32, 22, 16, 11, 8, 6, 4, 3)
"""Side of the blur in each pass over the reduced picture, in its pixels, `SCALE` of the photo's."""
FINE = (10, 5, 3, 2)
"""The same for the passes over the photo itself. The paper has two passes, 90 and 6."""
REACH = sum(box // 2 for box in FINE)
"""How far the fine passes look, in pixels."""
TILE = 256
"""Side of the squares in which they run, in pixels."""
_TINY = np.float32(1e-5)
"""Added to weights, so that where a layer is nowhere near, its last guess continues."""

Layers = list[tuple[np.ndarray, np.ndarray]]
"""Foreground and background of each channel, H x W float32, in 0..white."""


def estimate_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground's own colours by blur fusion, from coarse to fine.

    In each pass a guess of both layers is their local mean, weighted with alpha and 1 - alpha. Then
    both are moved by the least amount that makes them and alpha explain the image. The paper makes
    two passes and moves the foreground only, by less. Here wide passes are made on a reduced
    picture, where many cost little, and narrow ones only near pixels with 0 < alpha < 255.

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
    Measured on 39 composites of known foregrounds (hair, fur, toys, glass): mean error of the
    colours where 0 < alpha < 255, weighted with alpha, in 0..255. The image as it is: 17.7;
    pymatting's multi-level solver: 4.7; this: 3.4, and better in each. Edges that stay soft over
    more than the largest box keep some of the old background.

    References
    ----------
    M. Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021.
    """
    height, width = alpha.shape
    white = np.float32(np.iinfo(image.dtype).max)
    coarse = _blur_fusion(*_reduce(image, alpha), COARSE, white)

    foreground = np.rint(cv2.merge([layer for layer, _ in coarse])).astype(image.dtype)
    foreground = cv2.resize(foreground, (width, height), interpolation=cv2.INTER_LINEAR)
    soft = (alpha > 0) & (alpha < 255)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            y, x = max(0, top - REACH), max(0, left - REACH)
            around = np.s_[y : top + TILE + REACH, x : left + TILE + REACH]
            if soft[around].any():
                guess = _enlarge(coarse, (y, x), alpha[around].shape, alpha.shape)
                planes, weight = _planes(image[around]), _opacity(alpha[around])
                fine = _blur_fusion(planes, weight, guess, FINE, white)
                here = np.s_[top - y : top - y + TILE, left - x : left - x + TILE]
                tile = np.rint(cv2.merge([layer[here] for layer, _ in fine]))
                foreground[top : top + TILE, left : left + TILE] = tile
    return cv2.copyTo(image, (alpha == 255).view(np.uint8), foreground)


def _reduce(image: np.ndarray, alpha: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, Layers]:
    """Reduce channels and opacity; each layer is a mean weighted with it, or with the rest."""
    size = tuple(-(-side // SCALE) for side in alpha.shape[::-1])

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)

    opacity = _opacity(alpha)
    weight = mean(opacity)
    planes, layers = [], []
    for channel in range(3):  # one at a time: a third of the memory
        plane = image[..., channel].astype(np.float32)
        share, plane = mean(plane * opacity), mean(plane)
        planes.append(plane)
        layers.append(
            (
                (share + _TINY * plane) / (weight + _TINY),
                (plane - share + _TINY * plane) / (1 - weight + _TINY),
            )
        )
    return planes, weight, layers


def _planes(image: np.ndarray) -> list[np.ndarray]:
    """Return the channels of an image, H x W float32 each."""
    return list(cv2.split(image.astype(np.float32)))


def _opacity(alpha: np.ndarray) -> np.ndarray:
    return alpha.astype(np.float32) / 255


def _blur_fusion(
    image: list[np.ndarray],
    alpha: np.ndarray,
    layers: Layers,
    boxes: tuple[int, ...],
    white: np.float32,
) -> Layers:
    """Refine the layers of each channel, one pass for each box."""
    rest = 1 - alpha
    weight, other_weight = alpha + _TINY, rest + _TINY
    square = alpha**2 + rest**2
    for box in boxes:
        total, other_total = _blur(weight, box), _blur(other_weight, box)
        refined = []
        for plane, (foreground, background) in zip(image, layers, strict=True):
            foreground = _blur(foreground * weight, box) / total
            background = _blur(background * other_weight, box) / other_total
            # The nearest to this guess for which alpha * foreground + rest * background = image.
            step = (plane - alpha * foreground - rest * background) / square
            refined.append(
                (
                    np.clip(foreground + alpha * step, 0, white),
                    np.clip(background + rest * step, 0, white),
                )
            )
        layers = refined
    return layers


def _blur(plane: np.ndarray, box: int) -> np.ndarray:
    return cv2.blur(plane, (box, box))


def _enlarge(
    layers: Layers, corner: tuple[int, ...], size: tuple[int, ...], whole: tuple[int, ...]
) -> Layers:
    """Cut a rectangle (y, x; height, width) out of layers enlarged to the whole photo's size."""
    reduced = layers[0][0].shape
    scale = [small / large for small, large in zip(reduced, whole, strict=True)]
    first = [(c + 0.5) * s - 0.5 for c, s in zip(corner, scale, strict=True)]  # pixels' centres
    start = [max(0, int(f)) for f in first]
    stop = [int(f + n * s) + 2 for f, n, s in zip(first, size, scale, strict=True)]
    needed = np.s_[start[0] : stop[0], start[1] : stop[1]]  # warpAffine takes 32767 on a side
    to_needed = np.array([[scale[1], 0, first[1] - start[1]], [0, scale[0], first[0] - start[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def enlarge(layer: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(
            layer[needed], to_needed, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )

    return [(enlarge(foreground), enlarge(background)) for foreground, background in layers]
