"""The four measures of alpha matting, SAD, MSE, GRAD and CONN, as mmediting computes them.

The measures are those of C. Rhemann et al., "A Perceptually Motivated Online Benchmark for Image
Matting", CVPR 2009. The figures follow mmediting 0.16.1 (mmedit/core/evaluation/metrics.py), by
which its published models were measured. Everywhere ``prediction``, ``truth`` and ``trimap`` are
H x W uint8, and the unknown region is ``trimap == 128``, no other value.

Where mmediting differs from the MATLAB code of the Composition-1k benchmark:

- SAD and MSE sum over the whole image, not over the unknown region. That is the same only if the
  truth is 0 and 255 in the known regions (predictions have to be).
- Without unknown pixels MSE is 0, not NaN, and SAD may be more than 0.
- CONN where nothing is opaque enough for a threshold: see `connectivity_error`. Of components of
  equal size the first in row-major order counts, not in column-major order.
- GRAD and CONN are divided by 1000 as SAD is.

A trimap is always asked for: without one, mmediting's `tools/evaluate_comp1k.py` counts nothing as
unknown and gives 0 for all but SAD.

`flicker` is for clips; mmediting has no such measure.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

_SIGMA = 1.4  # of the Gaussian derivative, in pixels
_RADIUS = 4  # where the Gaussian falls below 0.01: ceil(sigma * sqrt(-2 ln(0.01 sigma sqrt(2 pi))))
_TOLERANCE = np.float32(0.15)  # a smaller distance from connectedness does not count

# float32 throughout, as mmediting computes: in float64 some thresholds fall on the other side of a
# value (0.3, 0.6 and 0.7 are not exact), and CONN changes by up to 10 %.
_THRESHOLDS = np.arange(0, 1.1, 0.1).astype(np.float32)  # 0.0 ... 1.0
_OPACITIES = np.arange(256, dtype=np.float32) / np.float32(255)
# _CUTS[i] is the smallest of 0..255 whose opacity reaches threshold i + 1.
_CUTS = np.searchsorted(_OPACITIES, _THRESHOLDS[1:]).tolist()


def sad(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> float:
    """Sum of absolute differences of alpha (0..1) over the whole image, in thousands.

    Raises
    ------
    ValueError
        Shapes or types are wrong, or the prediction is not 0 where the trimap is 0 and 255 where it
        is 255. So do the other measures.
    """
    _check(prediction, truth, trimap)
    return cv2.norm(prediction, truth, cv2.NORM_L1) / 255 / 1000


def mse(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> float:
    """Sum of squared differences of alpha over the whole image, by the number of unknown pixels.

    0 if no pixel is unknown.
    """
    _check(prediction, truth, trimap)
    unknown = np.count_nonzero(trimap == 128)
    return cv2.norm(prediction, truth, cv2.NORM_L2SQR) / 255**2 / unknown if unknown else 0.0


def gradient_error(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> float:
    """Sum of squared differences of the gradients' magnitudes in the unknown region, in thousands.

    The gradients are first derivatives of a Gaussian (sigma 1.4). Each alpha is first stretched to
    0..1 by its own minimum and maximum; one without contrast has no gradient. Magnitudes are
    rounded to float32.
    """
    _check(prediction, truth, trimap)
    difference = _gradient_magnitude(prediction) - _gradient_magnitude(truth)
    return float(np.sum(difference[trimap == 128] ** 2, dtype=np.float64)) / 1000


def connectivity_error(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> float:
    """Sum of differences of connectedness in the unknown region, in thousands.

    For thresholds 0.1, 0.2, ... 1.0 the source is the largest 4-connected component of the pixels
    that reach the threshold in both mattes (the first in row-major order if several are largest). A
    pixel is connected up to the last threshold before it first leaves the source. Its connectedness
    in a matte is 1 minus the distance of its alpha from there, if that is at least 0.15.

    All comparisons are made in float32, as in mmediting. Where no pixel reaches a threshold the
    source is empty, and all that are left leave it there (MATLAB skips such a threshold).
    """
    _check(prediction, truth, trimap)
    unknown = trimap == 128
    level = _connected_level(np.minimum(prediction, truth, order="C"))[unknown]
    difference = _CONNECTEDNESS[prediction[unknown], level]
    difference -= _CONNECTEDNESS[truth[unknown], level]
    return float(np.sum(np.abs(difference), dtype=np.float64)) / 1000


def flicker(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """How far alpha (0..1) changes from frame to frame otherwise than the truth, times 100.

    dtSSD of M. Erofeev et al., "Perceptually Motivated Benchmark for Video Matting", BMVC 2015, as
    S. Lin et al. ("Robust High-Resolution Video Matting", WACV 2022) scale it: the root of the mean
    square over the pixels, and its mean over all pairs of neighbouring frames. An error that stays
    is no flicker.

    Raises
    ------
    ValueError
        There are fewer than two frames, or not as many of both, or they differ in size.
    """
    if len(predictions) != len(truths) or len(truths) < 2:
        raise ValueError(
            f"{len(predictions)} predictions and {len(truths)} truths, expected two or more of both"
        )
    if len(shapes := {frame.shape for frame in (*predictions, *truths)}) > 1:
        raise ValueError(f"frames of several shapes: {', '.join(map(str, sorted(shapes)))}")
    errors = [p.astype(np.float32) - t for p, t in zip(predictions, truths, strict=True)]
    changes = [math.sqrt(np.mean((b - a) ** 2)) for a, b in itertools.pairwise(errors)]
    return 100 / 255 * sum(changes) / len(changes)


def evaluate(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> dict[str, float]:
    """All four measures by their names, SAD, MSE, GRAD and CONN."""
    measures = {"SAD": sad, "MSE": mse, "GRAD": gradient_error, "CONN": connectivity_error}
    return {name: measure(prediction, truth, trimap) for name, measure in measures.items()}


def _check(prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray) -> None:
    for name, array in (("prediction", prediction), ("truth", truth), ("trimap", trimap)):
        if array.dtype != np.uint8 or array.ndim != 2:
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}; expected uint8, height x width"
            )
        if array.shape != trimap.shape:
            raise ValueError(f"{name} has shape {array.shape}, the trimap {trimap.shape}")
    for known in (0, 255):
        wrong = np.count_nonzero((trimap == known) & (prediction != known))
        if wrong:
            raise ValueError(
                f"the prediction is not {known} in {wrong} pixels where the trimap is {known}; "
                "mask it with the trimap first"
            )


def _gaussian_derivative() -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothing and the differentiating filter, whose outer product has norm 1."""
    x = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2 * _SIGMA**2)) / (_SIGMA * math.sqrt(2 * math.pi))
    derivative = -x * smooth / _SIGMA**2
    return smooth / np.linalg.norm(smooth), derivative / np.linalg.norm(derivative)


def _gradient_magnitude(alpha: np.ndarray) -> np.ndarray:
    low, high = int(alpha.min()), int(alpha.max())
    stretched = (alpha - np.float64(low)) / max(high - low, 1)
    smooth, derivative = _gaussian_derivative()
    border = cv2.BORDER_REPLICATE
    across = cv2.sepFilter2D(stretched, cv2.CV_64F, derivative, smooth, borderType=border)
    down = cv2.sepFilter2D(stretched, cv2.CV_64F, smooth, derivative, borderType=border)
    return cv2.magnitude(across, down).astype(np.float32)


def _connectedness_table() -> np.ndarray:
    """256 x 11: the connectedness of an alpha value connected up to each threshold, float32."""
    distance = _OPACITIES[:, None] - _THRESHOLDS
    return 1 - distance * (distance >= _TOLERANCE)


_CONNECTEDNESS = _connectedness_table()


def _connected_level(both: np.ndarray) -> np.ndarray:
    """Index of the last threshold before a pixel first leaves the source: H x W uint8, 0..10.

    ``both`` is the smaller alpha of the two: it reaches a threshold where both do.
    """
    level = np.zeros(both.shape, np.uint8)
    left, top, width, height = cv2.boundingRect((both >= _CUTS[0]).view(np.uint8))
    if width == 0:
        return level
    window = np.s_[top : top + height, left : left + width]  # outside of it the level is 0
    connected = np.ones((height, width), np.uint8)
    for source in _sources(both[window]):
        connected &= source
        if not connected.any():
            break
        level[window] += connected
    return level


def _sources(both: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the source at each threshold, H x W of 0 and 1, until one is empty.

    Labelling an image costs ten times what filling one component costs. Components only shrink and
    break as the threshold rises. So the component around the peak is the largest if it is larger
    than the second largest was when they were last labelled, and than all the other fragments of
    the largest together. Only otherwise is the image labelled (again).
    """
    inside, rival = both, 0  # the alpha within the source last found by labelling
    seed = _thickest_peak(inside)
    for cut in _CUTS:
        area, source = _fill(inside, seed, cut)
        fragments = np.count_nonzero(inside >= cut) - area
        if area <= max(rival, fragments):
            mask = both >= cut
            if not mask.any():
                return
            source, rival = _largest_component(mask)
            inside = both * source
            seed = _thickest_peak(inside)
        yield source


def _thickest_peak(alpha: np.ndarray) -> tuple[int, int]:
    """Find x and y of the maximum; of several, the one with the most opaque surroundings.

    Mattes have many pixels of 255, and the first of them is often a speck, not the object.
    """
    rank = np.bitwise_or(alpha.astype(np.uint16) << 8, cv2.blur(alpha, (31, 31)))
    x, y = cv2.minMaxLoc(rank)[3]
    return x, y


def _fill(alpha: np.ndarray, seed: tuple[int, int], cut: int) -> tuple[int, np.ndarray]:
    """Area and mask (0 and 1) of the component of ``alpha >= cut`` around a maximum, if any."""
    mask = np.zeros((alpha.shape[0] + 2, alpha.shape[1] + 2), np.uint8)  # OpenCV wants a frame
    below_peak = int(alpha[seed[::-1]]) - cut
    if below_peak < 0:
        return 0, mask[1:-1, 1:-1]
    fill_with_one = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 1 << 8
    area, *_ = cv2.floodFill(alpha, mask, seed, (0,), (below_peak,), (0,), fill_with_one)
    return area, mask[1:-1, 1:-1]


def _largest_component(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the largest 4-connected component (0 and 1), and the area of the second largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest: np.ndarray = np.flatnonzero(areas == areas.max()) + 1
    if largest.size > 1:  # the first in row-major order, which is where argmax finds the first True
        largest = labels.flat[[np.argmax(np.isin(labels, largest))]]
    second = np.delete(areas, largest - 1).max(initial=0)
    return (labels == largest).view(np.uint8), int(second)
