"""The four measures equal mmediting's figures, and a slow plain implementation on small mattes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from matting.images import read_gray
from matting.metrics import connectivity_error, evaluate, flicker, gradient_error, mse, sad

ORACLE = Path(__file__).parents[1] / "data/oracle/metrics"
CASES = {case["name"]: case for case in json.loads((ORACLE / "metrics.json").read_text())}
MEASURES = {"SAD": sad, "MSE": mse, "GRAD": gradient_error, "CONN": connectivity_error}
UNKNOWN = np.full((4, 5), 128, np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_equal_to_mmediting(name: str) -> None:
    images = [read_gray(ORACLE / f"{name}_{part}.png") for part in ("pred", "gt", "trimap")]
    expected = {measure: CASES[name][measure] for measure in MEASURES}
    assert evaluate(*images) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    for measure, function in MEASURES.items():
        assert function(*images) == pytest.approx(expected[measure], rel=1e-6, abs=1e-12)
    assert evaluate(*map(np.asfortranarray, images)) == evaluate(*images)


@pytest.mark.parametrize("function", MEASURES.values())
@pytest.mark.parametrize(
    ("position", "array", "line"),
    [
        (0, UNKNOWN.astype(np.float32), "prediction is float32"),
        (1, UNKNOWN[..., None], r"truth is uint8 of shape \(4, 5, 1\); expected uint8, height"),
        (2, UNKNOWN[:3], r"prediction has shape \(4, 5\), the trimap \(3, 5\)"),
        (1, UNKNOWN[:, :2], r"truth has shape \(4, 2\)"),
        (2, np.where(np.eye(4, 5), 0, 128).astype(np.uint8), "not 0 in 4 pixels.* mask it"),
        (2, np.where(np.eye(4, 5), 255, 128).astype(np.uint8), "not 255 in 4 pixels.* mask it"),
    ],
)
def test_what_does_not_fit_is_refused(
    function: object, position: int, array: np.ndarray, line: str
) -> None:
    arguments = [UNKNOWN] * 3
    arguments[position] = array
    with pytest.raises(ValueError, match=line):
        function(*arguments)


def components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """List the 4-connected components in the row-major order of their first pixels."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        component, stack = set(), [min(left)]
        while stack:
            y, x = stack.pop()
            if (y, x) in left:
                left.remove((y, x))
                component.add((y, x))
                stack += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        found.append(component)
    return found


def plain_connectivity_error(
    prediction: np.ndarray, truth: np.ndarray, trimap: np.ndarray
) -> float:
    """Follow the definition pixel by pixel, float32 where mmediting has float32."""
    opacity = [alpha.astype(np.float32) / np.float32(255) for alpha in (prediction, truth)]
    thresholds = [np.float32(value) for value in np.arange(0, 1.1, 0.1)]
    left_at = np.full(trimap.shape, -1, np.float32)
    for previous, threshold in itertools.pairwise(thresholds):
        both = (opacity[0] >= threshold) & (opacity[1] >= threshold)
        source = max(components(both), key=len, default=set())  # the first of the largest
        for pixel in np.ndindex(trimap.shape):
            if left_at[pixel] == -1 and pixel not in source:
                left_at[pixel] = previous
    left_at[left_at == -1] = 1
    total = 0.0
    for pixel in zip(*np.nonzero(trimap == 128), strict=True):
        connected = []
        for alpha in opacity:
            distance = alpha[pixel] - left_at[pixel]
            connected.append(1 - distance if distance >= np.float32(0.15) else np.float32(1))
        total += abs(float(connected[0]) - float(connected[1]))
    return total / 1000


@pytest.mark.parametrize("levels", [2, 4, 11, 256])
@pytest.mark.parametrize("density", [0.3, 0.7, 1.0])
def test_connectivity_on_random_mattes(levels: int, density: float) -> None:
    """Few levels make components of equal size, low density makes many of them."""
    random = np.random.default_rng(levels)
    for _ in range(40):
        shape = tuple(random.integers(1, 13, 2))
        mattes = np.round(random.integers(0, levels, (2, *shape)) * 255 / (levels - 1))
        mattes[:, random.random(shape) > density] = 0
        prediction, truth = mattes.astype(np.uint8)
        trimap = random.choice(np.array([0, 127, 128, 128, 128, 255], np.uint8), shape)
        prediction = np.where(np.isin(trimap, (0, 255)), trimap, prediction)
        expected = plain_connectivity_error(prediction, truth, trimap)
        error = connectivity_error(prediction, truth, trimap)
        assert error == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_of_equal_components_the_first_in_row_major_order_counts() -> None:
    """Two bars of 3 pixels: the upper is first row by row, the lower would be by columns."""
    truth = np.zeros((5, 5), np.uint8)
    truth[0, 2:], truth[2:, 0] = 255, 255
    prediction = np.zeros((5, 5), np.uint8)
    prediction[0, 2:], prediction[2:, 0] = 127, 200
    trimap = np.full((5, 5), 128, np.uint8)
    # The upper bar is the source up to 0.4: 1 is 0.6 away from there, 127 / 255 is near enough.
    # The lower bar leaves at 0: 1 is 1 away, 200 / 255 is that far away.
    expected = (3 * 0.6 + 3 * (1 - 200 / 255)) / 1000
    assert connectivity_error(prediction, truth, trimap) == pytest.approx(expected, rel=1e-6)


def test_largest_changes_when_the_first_one_breaks() -> None:
    """A bar that is one at 0.1 falls apart at 0.6: the square becomes the source, too late."""
    truth = np.zeros((6, 12), np.uint8)
    truth[0] = 255
    truth[0, 3::4] = 100
    truth[2:5, :3] = 255
    prediction = np.minimum(truth, 230)
    trimap = np.full(truth.shape, 128, np.uint8)
    expected = plain_connectivity_error(prediction, truth, trimap)
    assert expected > 0
    assert connectivity_error(prediction, truth, trimap) == pytest.approx(expected, rel=1e-6)


def test_sad_and_mse_of_known_differences() -> None:
    truth, prediction = np.zeros((10, 100), np.uint8), np.full((10, 100), 51, np.uint8)
    trimap = np.full((10, 100), 127, np.uint8)  # not 128: not unknown to the measures
    trimap[:5] = 128
    assert sad(prediction, truth, trimap) == pytest.approx(0.2)
    assert mse(prediction, truth, trimap) == pytest.approx(2 * 0.04)


def test_no_unknown_pixel() -> None:
    known = np.full((6, 6), 255, np.uint8)
    truth = np.full((6, 6), 250, np.uint8)
    result = evaluate(known, truth, known)
    assert result == {"SAD": pytest.approx(36 * 5 / 255 / 1000), "MSE": 0, "GRAD": 0, "CONN": 0}


def test_gradient_error_sees_no_gain_and_no_offset() -> None:
    ramp = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (20, 1))
    unknown = np.full(ramp.shape, 128, np.uint8)
    assert gradient_error(ramp // 5, ramp, unknown) == pytest.approx(0, abs=1e-12)
    assert gradient_error(np.zeros_like(ramp), ramp, unknown) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1)])
@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_tiny(size: tuple[int, int], value: int) -> None:
    flat, unknown = np.full(size, value, np.uint8), np.full(size, 128, np.uint8)
    assert evaluate(flat, flat, unknown) == {"SAD": 0, "MSE": 0, "GRAD": 0, "CONN": 0}


def test_flicker_of_known_clips(random: np.random.Generator) -> None:
    truths = random.integers(0, 200, (4, 6, 7), np.uint8)
    assert flicker(truths + 30, truths) == 0  # wrong, and steadily so
    swaying = truths + np.array([0, 51, 0, 51], np.uint8)[:, None, None]
    assert flicker(swaying, truths) == pytest.approx(20)
    half = truths.copy()
    half[1, :3] += 51
    half[2:, :3] += 51
    assert flicker(half, truths) == pytest.approx(20 * 0.5**0.5 / 3)


@pytest.mark.parametrize(
    ("predictions", "line"),
    [
        ([UNKNOWN] * 3, "3 predictions and 2 truths, expected two or more of both"),
        ([UNKNOWN, UNKNOWN[:3]], r"several shapes: \(3, 5\), \(4, 5\)"),
    ],
)
def test_clips_that_do_not_fit_are_refused(predictions: list[np.ndarray], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        flicker(predictions, [UNKNOWN] * 2)
