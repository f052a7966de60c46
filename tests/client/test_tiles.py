"""Tiles as pure functions: where they lie, what they hold, how they are joined."""

from itertools import product

import cv2
import numpy as np
import pytest

from client.tiles import STRIDE, cut_tile, join_tiles, plan_tiles
from matting.trimaps import is_unknown

SHAPES = [(1, 1), (5, 700), (300, 200), (256, 256), (353, 470), (640, 640)]
TILES = [(256, 32), (128, 16), (96, 16)]


@pytest.fixture
def make_trimap():
    """Random rings and spots of unknown pixels, some of them cut by the border."""

    def make(height, width, seed=0):
        random = np.random.default_rng(seed)
        trimap = np.zeros((height, width), np.uint8)
        for _ in range(3):
            centre = (int(random.integers(width)), int(random.integers(height)))
            radius = int(random.integers(1, 2 + max(height, width) // 3))
            cv2.circle(trimap, centre, radius, 255, cv2.FILLED)
            cv2.circle(trimap, centre, radius, 128, int(random.integers(1, 20)))
        trimap[random.integers(height), random.integers(width)] = 1  # unknown, too
        return trimap

    return make


def depth(corner, size, shape):
    """Pixels from each pixel to the outside of a tile, where that is not outside the photo too."""
    sides = []
    for start, length in zip(corner, shape, strict=True):
        position = np.arange(length)
        before = position - start if start > 0 else np.full(length, size)
        after = start + size - 1 - position if start + size < length else np.full(length, size)
        sides.append(np.minimum(before, after))
    return np.minimum.outer(*sides)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "margin"), TILES)
def test_every_unknown_pixel_has_its_margin_in_some_tile(make_trimap, shape, size, margin):
    for seed in range(2):
        trimap = make_trimap(*shape, seed)
        corners = plan_tiles(trimap, size, margin)
        deepest = np.max([depth(corner, size, shape) for corner in corners], axis=0)
        assert deepest[is_unknown(trimap)].min() >= margin


@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_lie_on_the_networks_grid_and_begin_inside(make_trimap, shape):
    corners = plan_tiles(make_trimap(*shape), 128, 16)
    assert corners == sorted(set(corners))
    for corner in corners:
        for start, length in zip(corner, shape, strict=True):
            assert start % STRIDE == 0
            # No further out than the padding that the whole photo would get.
            assert 0 <= start <= max(0, -(-length // STRIDE) * STRIDE - 128)


def test_fewer_tiles_than_a_grid_needs():
    trimap = np.zeros((1200, 1500), np.uint8)
    cv2.ellipse(trimap, (740, 610), (420, 510), 20, 0, 360, 255, cv2.FILLED)
    cv2.ellipse(trimap, (740, 610), (420, 510), 20, 0, 360, 128, 40)
    size, margin = 256, 32
    reach = size - 2 * margin
    blocks = product(range(0, 1200, reach), range(0, 1500, reach))
    grid = sum(bool((trimap[y : y + reach, x : x + reach] == 128).any()) for y, x in blocks)
    assert len(plan_tiles(trimap, size, margin)) <= 0.8 * grid


def test_nothing_unknown_needs_no_tile():
    assert plan_tiles(np.full((300, 300), 255, np.uint8), 128, 16) == []


def test_whole_photo_unknown():
    corners = plan_tiles(np.full((512, 512), 128, np.uint8), 256, 32)
    # Three tiles a side: 256 less a margin, 256 less two, 256 less a margin reach over 512.
    assert len(corners) == 9


@pytest.mark.parametrize("turned", range(8))
def test_turning_the_photo_does_not_change_the_number_of_tiles(make_trimap, turned):
    trimap = make_trimap(640, 640, seed=3)
    other = np.rot90(trimap.T if turned >= 4 else trimap, turned % 4)
    assert len(plan_tiles(other, 128, 32)) == len(plan_tiles(trimap, 128, 32))


@pytest.mark.parametrize(("size", "margin"), [(250, 32), (256, 24), (64, 32), (0, 0), (128, 0)])
def test_impossible_tiles_are_refused(size, margin):
    with pytest.raises(ValueError, match=f"tile of {size} with margin {margin}"):
        plan_tiles(np.full((300, 300), 128, np.uint8), size, margin)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3), (1, 1), (200, 70, 3)])
def test_tiles_go_on_with_the_reflection(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    padding = [(0, max(0, 96 - length)) for length in shape[:2]] + [(0, 0)] * (len(shape) - 2)
    expected = np.pad(pixels, padding, mode="reflect")[:96, :96]
    np.testing.assert_array_equal(cut_tile(pixels, (0, 0), 96), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "margin"), TILES)
def test_equal_answers_join_exactly(make_trimap, shape, size, margin):
    trimap = make_trimap(*shape, seed=1)
    truth = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    corners = plan_tiles(trimap, size, margin)
    tiles = (cut_tile(truth, corner, size) for corner in corners)
    joined = join_tiles(trimap, corners, tiles, size)
    assert joined.dtype == np.uint8
    np.testing.assert_array_equal(joined, np.where(is_unknown(trimap), truth, trimap))


def test_overlap_is_the_mean_weighted_with_the_distance_to_the_tiles_borders():
    trimap = np.full((128, 224), 128, np.uint8)
    tiles = [np.full((128, 128), value, np.uint8) for value in (40, 200)]
    joined = join_tiles(trimap, [(0, 0), (0, 96)], tiles, 128)
    rising = np.arange(1, 33)  # of the second tile, over columns 96..127
    falling = rising[::-1]
    overlap = np.floor((40 * falling + 200 * rising) / (falling + rising) + 0.5)
    expected = np.concatenate([np.full(96, 40), overlap, np.full(96, 200)])
    np.testing.assert_array_equal(joined, np.tile(expected, (128, 1)))


def test_no_seam_where_tiles_disagree(make_trimap):
    trimap = np.full((640, 640), 128, np.uint8)
    size, margin = 256, 32
    corners = plan_tiles(trimap, size, margin)
    values = np.random.default_rng(0).integers(0, 256, len(corners))
    tiles = [np.full((size, size), value, np.uint8) for value in values]
    joined = join_tiles(trimap, corners, tiles, size).astype(int)
    # From 0 to 255 over a margin is 8 a pixel; more only where several tiles end at one place.
    assert np.abs(np.diff(joined, axis=0)).max() <= 24
    assert np.abs(np.diff(joined, axis=1)).max() <= 24


def test_order_of_tiles_changes_nothing(make_trimap):
    trimap = make_trimap(640, 640, seed=2)
    corners = plan_tiles(trimap, 128, 32)
    random = np.random.default_rng(0)
    tiles = [random.integers(0, 256, (128, 128), np.uint8) for _ in corners]
    joined = join_tiles(trimap, corners, tiles, 128)
    order = random.permutation(len(corners))
    shuffled = join_tiles(trimap, [corners[i] for i in order], [tiles[i] for i in order], 128)
    np.testing.assert_array_equal(shuffled, joined)
    assert (joined[~is_unknown(trimap)] == trimap[~is_unknown(trimap)]).all()


def test_sums_of_many_large_tiles_fit():
    trimap = np.full((512, 512), 128, np.uint8)
    white = np.full((512, 512), 255, np.uint8)
    joined = join_tiles(trimap, [(0, 0)] * 200, [white] * 200, 512)
    assert (joined == 255).all()
