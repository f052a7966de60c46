"""Trimaps are made as mmediting makes them, and what is no trimap is named."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from matting.images import read_gray
from matting.trimaps import (
    check_trimap,
    has_unknown,
    quantize,
    trimap_from_alpha,
    trimap_from_mask,
)

KERNELS = [(1, 1), (2, 3), (5, 5), (10, 4), (29, 29), (3, 28)]


@pytest.fixture
def alpha(data: Path) -> np.ndarray:
    """A hairy matte, 353 x 470."""
    return read_gray(data / "oracle/trimaps/alpha.png")


@pytest.mark.parametrize(("erode", "dilate"), KERNELS)
def test_equal_to_mmediting(alpha: np.ndarray, data: Path, erode: int, dilate: int) -> None:
    expected = read_gray(data / f"oracle/trimaps/gen_trimap_e{erode}_d{dilate}.png")
    np.testing.assert_array_equal(trimap_from_alpha(alpha, erode, dilate), expected)


@pytest.mark.parametrize(
    "values",
    [
        [0, 128, 255],
        [0, 255],
        [128],
        [0, 127, 255],
        [0, 100, 200],
        [40, 60, 80, 100],
        range(112, 145),
    ],
)
def test_trimaps_pass(values: list[int]) -> None:
    assert check_trimap(np.array([values], np.uint8)) is None


def test_alpha_is_named_with_its_values(alpha: np.ndarray) -> None:
    problem = check_trimap(alpha)
    assert problem is not None
    assert "alpha matte or a photo: 254 values between 0 and 255 (1, 2, 3, " in problem
    assert check_trimap(quantize(alpha)) is None


def test_photo_is_named(random: np.random.Generator) -> None:
    photo = random.integers(60, 90, (20, 20), dtype=np.uint8)
    assert "looks like an alpha matte or a photo" in str(check_trimap(photo))
    assert "5 values between" in str(check_trimap(np.uint8([[40, 60, 80, 100, 180]])))


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 128, 254], [3, 128, 255], [0, 239, 255]])
def test_values_that_are_nearly_known(values: list[int]) -> None:
    problem = check_trimap(np.array([values], np.uint8))
    assert "nearly 0 or 255" in str(problem)


@pytest.mark.parametrize("values", [[0, 126, 235], [0, 16, 126, 235], [16, 235], [0, 201]])
def test_white_that_would_be_unknown(values: list[int]) -> None:
    problem = check_trimap(np.array([values], np.uint8))
    assert f"its brightest value is {max(values)}, but foreground is 255" in str(problem)


def test_quantize_every_value() -> None:
    expected = [0] * 17 + [128] * 222 + [255] * 17
    every = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(quantize(every), [expected])


@pytest.mark.parametrize("quality", [90, 95, 100])
def test_quantize_undoes_jpeg(alpha: np.ndarray, quality: int) -> None:
    trimap = trimap_from_alpha(alpha, 10, 10)
    data = cv2.imencode(".jpg", trimap, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    compressed = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert (compressed != trimap).any()
    np.testing.assert_array_equal(quantize(compressed), trimap)


def test_has_unknown() -> None:
    assert not has_unknown(np.array([[0, 255]], np.uint8))
    for value in (1, 128, 254):
        assert has_unknown(np.array([[0, value, 255]], np.uint8))


def disc(radius: int, size: int = 201) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return (x - size // 2) ** 2 + (y - size // 2) ** 2 <= radius**2


@pytest.mark.parametrize(("erode", "dilate"), [(10, 20), (0, 7), (25, 0)])
def test_mask_radii_in_pixels(erode: int, dilate: int) -> None:
    trimap = trimap_from_mask(disc(50), erode, dilate)
    foreground, background = trimap == 255, trimap == 0
    assert not (foreground & ~disc(51 - erode)).any()
    assert not (disc(49 - erode) & ~foreground).any()
    assert not (background & disc(49 + dilate)).any()
    assert not (~disc(51 + dilate) & ~background).any()


def test_mask_radii_as_shares_of_the_object() -> None:
    size = np.sqrt(disc(50).sum())
    np.testing.assert_array_equal(
        trimap_from_mask(disc(50), 0.1, 0.2), trimap_from_mask(disc(50), 0.1 * size, 0.2 * size)
    )


def test_shares_of_a_small_object_are_at_least_a_pixel() -> None:
    assert 0.02 * np.sqrt(disc(20).sum()) < 1
    np.testing.assert_array_equal(
        trimap_from_mask(disc(20), 0.02, 0.02), trimap_from_mask(disc(20), 1, 1)
    )
    assert not has_unknown(trimap_from_mask(disc(20), 0, 0))


def test_soft_mask_is_unknown_where_it_is_soft() -> None:
    mask = cv2.GaussianBlur(disc(50).astype(np.uint8) * 255, (0, 0), 5)
    trimap = trimap_from_mask(mask, 0, 0)
    np.testing.assert_array_equal(trimap, quantize(mask))
    wider = trimap_from_mask(mask, 4, 4)
    assert (wider[trimap == 128] == 128).all()
    assert (wider == 128).sum() > (trimap == 128).sum()


def test_bool_and_uint8_masks_are_the_same() -> None:
    np.testing.assert_array_equal(
        trimap_from_mask(disc(30)), trimap_from_mask(disc(30).astype(np.uint8) * 255)
    )


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 200)])
def test_masks_without_an_edge_stay_known(value: bool, size: tuple[int, int]) -> None:
    trimap = trimap_from_mask(np.full(size, value))
    assert (trimap == 255 * value).all()
