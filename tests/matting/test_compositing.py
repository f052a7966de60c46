"""Composites are rounded exactly, backgrounds cover the picture."""

import numpy as np
import pytest

from matting.compositing import checkerboard, composite, cutout, fit_background


def test_every_alpha_and_colour_is_rounded_to_nearest(random: np.random.Generator) -> None:
    alpha, colour = np.meshgrid(np.arange(256), np.arange(256))
    foreground = np.dstack([colour] * 3).astype(np.uint8)
    background = random.integers(0, 256, foreground.shape, dtype=np.uint8)
    result = composite(alpha.astype(np.uint8), foreground, background)
    weight = alpha[..., None] / 255
    exact = weight * foreground + (1 - weight) * background
    assert result.dtype == np.uint8
    assert abs(result - exact).max() < 0.5
    np.testing.assert_array_equal(result[:, 0], background[:, 0])
    np.testing.assert_array_equal(result[:, 255], foreground[:, 255])


def test_sizes_that_differ() -> None:
    picture = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match=r"alpha \(4, 6\), foreground \(4, 5\)"):
        composite(np.zeros((4, 6), np.uint8), picture, picture)


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (300, 7), (64, 64), (63, 65)])
@pytest.mark.parametrize("source", [(1, 1), (48, 100), (211, 3), (64, 64)])
def test_background_covers_exactly(size: tuple[int, int], source: tuple[int, int]) -> None:
    fitted = fit_background(np.full((*source, 3), 99, np.uint8), *size)
    assert fitted.shape == (*size, 3)
    assert (fitted == 99).all()


def test_background_is_averaged_when_made_smaller_and_sharp_when_larger() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::4] = 255
    assert (fit_background(stripes, 50, 50) == 64).all()
    step = np.full((10, 10, 3), 50, np.uint8)
    step[:, 5:] = 200
    assert fit_background(step, 40, 40).min() < 50


@pytest.mark.parametrize("side", [20, 100, 250])
def test_background_is_cropped_at_its_centre(side: int) -> None:
    stripes = np.zeros((100, 300, 3), np.uint8)
    for channel in range(3):
        stripes[:, channel * 100 : channel * 100 + 100, channel] = 255
    wide = fit_background(stripes, side, side).mean(axis=(0, 1))
    tall = fit_background(stripes.swapaxes(0, 1), side, side).mean(axis=(0, 1))
    for mean in (wide, tall):
        assert mean[1] > 250  # the middle stripe fills the square, its neighbours bleed in
        assert mean[0] == pytest.approx(mean[2], abs=1)


@pytest.mark.parametrize("length", [50, 51])
def test_a_strip_is_cropped_before_it_is_scaled(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    strip = random.integers(0, 256, (length, 2, 3), dtype=np.uint8)
    for picture, size in ((strip, (30, 40)), (strip.swapaxes(0, 1), (40, 30))):
        whole = fit_background(picture, *size)
        with monkeypatch.context() as patch:
            patch.setattr("matting.compositing.MAX_PIXELS", 40 * 40)
            np.testing.assert_array_equal(fit_background(picture, *size), whole)


def test_a_strip_that_would_fill_the_memory() -> None:
    picture = np.full((2000, 1, 3), 99, np.uint8)
    picture[999:1001] = 7
    fitted = fit_background(picture, 3000, 4000)
    assert fitted.shape == (3000, 4000, 3)
    assert (fitted[1200:1800] < 99).all()


def test_checkerboard() -> None:
    board = checkerboard(40, 50)
    assert board.shape == (40, 50, 3)
    assert (board[:16, :16] == 255).all()
    assert (board[:16, 16:32] == 204).all()
    assert (board[16:32, 16:32] == 255).all()


def test_cutout_joins_colours_and_alpha(random: np.random.Generator) -> None:
    colours = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, (6, 7), dtype=np.uint8)
    rgba = cutout(colours, alpha)
    np.testing.assert_array_equal(rgba[..., :3], colours)
    np.testing.assert_array_equal(rgba[..., 3], alpha)
    assert rgba.dtype == np.uint8
