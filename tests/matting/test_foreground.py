"""Foreground colours are found behind the mixture, measured against known ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from matting.compositing import composite
from matting.foreground import estimate_foreground
from matting.images import read_gray, to_depth


def weighted_error(found: np.ndarray, truth: np.ndarray, alpha: np.ndarray) -> float:
    """Mean absolute error of the colours in the unknown region, weighted with alpha, 0..255."""
    weight = np.where((alpha > 0) & (alpha < 255), alpha, 0)[..., None] / 255
    return float((weight * abs(found.astype(float) - truth)).sum() / (3 * weight.sum()))


def test_halo_of_the_old_background_goes(data: Path, random: np.random.Generator) -> None:
    alpha = read_gray(data / "oracle/trimaps/alpha.png")
    size = alpha.shape[::-1]
    coarse = random.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    foreground, background = (cv2.resize(c, size, interpolation=cv2.INTER_CUBIC) for c in coarse)
    image = composite(alpha, foreground, background)
    found = estimate_foreground(image, alpha)
    # Measured: 25.0 for the image as it is, 8.7 for the estimate (pymatting's solver: 11.2).
    assert weighted_error(image, foreground, alpha) > 20
    assert weighted_error(found, foreground, alpha) < 10


def test_soft_edge_between_two_colours() -> None:
    ramp = np.clip((np.arange(120) - 54) * 20, 0, 255).astype(np.uint8)
    alpha = np.tile(ramp, (80, 1))
    foreground = np.full((80, 120, 3), (200, 40, 90), np.uint8)
    image = composite(alpha, foreground, np.full_like(foreground, 30))
    found = estimate_foreground(image, alpha)
    # Measured: 27.7 and 0.12.
    assert weighted_error(image, foreground, alpha) > 25
    assert weighted_error(found, foreground, alpha) < 0.5
    outside = found[:, 44:54].astype(int) - foreground[:, 44:54]
    assert abs(outside).max() < 5  # measured 0: the colours go on where alpha is 0


def test_colours_go_on_beside_opaque_lines() -> None:
    alpha = np.zeros((200, 200), np.uint8)
    alpha[:, ::40] = 255
    foreground = np.full((200, 200, 3), (220, 180, 60), np.uint8)
    image = composite(alpha, foreground, np.full_like(foreground, 10))
    found = estimate_foreground(image, alpha)
    # Measured: 0; 94 where the passes begin with the reduced picture, a mixture, itself.
    assert abs(found.astype(int) - foreground).max() < 2


def test_tiles_change_nothing(
    data: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Multiples of SCALE: else enlarging rounds by 1/32 pixel, from each tile's own corner.
    alpha = read_gray(data / "oracle/trimaps/alpha.png")[:352, :468]
    image = random.integers(0, 256, (*alpha.shape, 3), dtype=np.uint8)
    whole = estimate_foreground(image, alpha)
    monkeypatch.setattr("matting.foreground.TILE", 50)
    shown = alpha > 0
    np.testing.assert_array_equal(estimate_foreground(image, alpha)[shown], whole[shown])


def test_opaque_pixels_keep_their_colours(random: np.random.Generator) -> None:
    image = random.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    alpha = random.choice(np.array([0, 100, 255], np.uint8), (50, 60))
    found = estimate_foreground(image, alpha)
    np.testing.assert_array_equal(found[alpha == 255], image[alpha == 255])


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (89, 91), (1, 140_000)])
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_any_size_and_flat_alpha(size: tuple[int, int], value: int) -> None:
    found = estimate_foreground(np.full((*size, 3), 50, np.uint8), np.full(size, value, np.uint8))
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8
    assert (abs(found.astype(int) - 50) <= 1).all()


def test_16_bits_are_the_same_colours_with_finer_steps(random: np.random.Generator) -> None:
    image = cv2.GaussianBlur(random.integers(0, 65536, (60, 80, 3), dtype=np.uint16), (0, 0), 3)
    alpha = cv2.GaussianBlur(random.integers(0, 256, (60, 80), dtype=np.uint8), (0, 0), 3)
    alpha[:20] = 255
    deep = estimate_foreground(image, alpha)
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep[alpha == 255], image[alpha == 255])
    assert len(np.unique(deep)) > 256
    shallow = estimate_foreground(to_depth(image, np.uint8), alpha)
    assert np.abs(deep / 257 - shallow).max() < 2
