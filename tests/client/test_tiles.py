"""Tiles as pure functions: where they lie, how they are joined."""

import time

import cv2
import numpy as np
import pytest

from client.tiles import MARGIN, STRIDE, Tile, join_tiles, plan_tiles
from matting.trimaps import is_unknown

SHAPES = [(1, 1), (5, 700), (300, 200), (256, 256), (353, 470), (640, 640)]
LARGEST = [1024, 256, 128, 96]


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


def work(tiles):
    return sum(tile.pixels for tile in tiles)


def depth(tile, shape):
    """Pixels from each pixel to the outside of a tile, where that is not outside the photo too."""
    sides = []
    for start, end, length in zip(tile[:2], tile[2:], shape, strict=True):
        position = np.arange(length)
        before = position - start if start > 0 else np.full(length, 10**6)
        after = end - 1 - position if end < length else np.full(length, 10**6)
        sides.append(np.minimum(before, after))
    return np.minimum.outer(*sides)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("largest", LARGEST)
def test_every_unknown_pixel_has_its_margin_in_some_tile(make_trimap, shape, largest):
    for seed in range(2):
        trimap = make_trimap(*shape, seed)
        tiles = plan_tiles(trimap, largest)
        enough = np.any([depth(tile, shape) >= MARGIN for tile in tiles], axis=0)
        assert enough[is_unknown(trimap)].all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("largest", LARGEST)
def test_tiles_lie_on_the_networks_grid_and_inside(make_trimap, shape, largest):
    tiles = plan_tiles(make_trimap(*shape), largest)
    assert tiles == sorted(set(tiles))
    for tile in tiles:
        for start, end, length in zip(tile[:2], tile[2:], shape, strict=True):
            assert start % STRIDE == 0 <= start < end <= length
            assert end % STRIDE == 0 or end == length
            assert end - start <= largest


def test_two_thirds_of_the_work_of_a_grid_of_squares():
    trimap = np.zeros((1200, 1500), np.uint8)
    cv2.ellipse(trimap, (740, 610), (420, 510), 20, 0, 360, 255, cv2.FILLED)
    cv2.ellipse(trimap, (740, 610), (420, 510), 20, 0, 360, 128, 40)
    size = 256
    reach = size - 2 * MARGIN
    padded = np.pad(trimap == 128, [(0, -length % reach) for length in trimap.shape])
    rows, columns = (length // reach for length in padded.shape)
    squares = padded.reshape(rows, reach, columns, reach).any(axis=(1, 3)).sum() * size**2
    assert work(plan_tiles(trimap)) < 0.67 * squares


def test_what_is_far_apart_is_not_in_one_tile():
    trimap = np.zeros((1000, 1000), np.uint8)
    trimap[[100, 900], [100, 900]] = 128
    assert [tile.pixels for tile in plan_tiles(trimap)] == [96 * 96] * 2


def test_nothing_unknown_needs_no_tile():
    assert plan_tiles(np.full((300, 300), 255, np.uint8)) == []


def test_whole_photo_unknown_is_one_tile_where_it_fits():
    trimap = np.full((500, 700), 128, np.uint8)
    assert plan_tiles(trimap) == [Tile(0, 0, 500, 700)]
    tiles = plan_tiles(trimap, 256)
    assert max(max(t.bottom - t.top, t.right - t.left) for t in tiles) == 256
    assert work(tiles) < 2 * trimap.size


def test_thousands_of_specks_are_planned_in_coarser_cells():
    trimap = np.zeros((4000, 4000), np.uint8)
    trimap[::70, ::70] = 128  # in every other cell
    tiles = plan_tiles(trimap)
    covered = np.zeros(trimap.shape, bool)
    for tile in tiles:
        tile.cut(covered)[:] = True
    assert covered[trimap == 128].all()
    assert work(tiles) < 1.5 * trimap.size


@pytest.mark.parametrize("largest", [250, 64, 0])
def test_impossible_tiles_are_refused(largest):
    with pytest.raises(ValueError, match=f"tile of {largest}: expected a multiple of 32 from 96"):
        plan_tiles(np.full((300, 300), 128, np.uint8), largest)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("largest", LARGEST)
def test_equal_answers_join_exactly(make_trimap, shape, largest):
    trimap = make_trimap(*shape, seed=1)
    truth = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tiles = plan_tiles(trimap, largest)
    joined = join_tiles(trimap, tiles, (tile.cut(truth) for tile in tiles))
    assert joined.dtype == np.uint8
    np.testing.assert_array_equal(joined, np.where(is_unknown(trimap), truth, trimap))


def test_overlap_is_the_mean_weighted_with_the_distance_to_the_tiles_borders():
    trimap = np.full((128, 128), 128, np.uint8)
    tiles = [Tile(0, 0, 128, 96), Tile(0, 32, 128, 128)]
    alphas = [np.full((128, 96), value, np.uint8) for value in (40, 200)]
    joined = join_tiles(trimap, tiles, alphas)
    rising = np.arange(1, 65)  # of the second tile, over columns 32..95
    falling = rising[::-1]
    overlap = np.floor((40 * falling + 200 * rising) / (falling + rising) + 0.5)
    expected = np.concatenate([np.full(32, 40), overlap, np.full(32, 200)])
    np.testing.assert_array_equal(joined, np.tile(expected, (128, 1)))


def test_no_seam_where_tiles_disagree():
    trimap = np.full((640, 640), 128, np.uint8)
    tiles = plan_tiles(trimap, 256)
    values = np.random.default_rng(0).integers(0, 256, len(tiles))
    alphas = [
        np.full((tile.bottom - tile.top, tile.right - tile.left), value, np.uint8)
        for tile, value in zip(tiles, values, strict=True)
    ]
    joined = join_tiles(trimap, tiles, alphas).astype(int)
    # From 0 to 255 over a margin is 8 a pixel; more only where several tiles end at one place.
    assert np.abs(np.diff(joined, axis=0)).max() <= 24
    assert np.abs(np.diff(joined, axis=1)).max() <= 24


def test_order_of_tiles_changes_nothing(make_trimap):
    trimap = make_trimap(640, 640, seed=2)
    tiles = plan_tiles(trimap, 128)
    random = np.random.default_rng(0)
    alphas = [random.integers(0, 256, tile.cut(trimap).shape, np.uint8) for tile in tiles]
    joined = join_tiles(trimap, tiles, alphas)
    order = random.permutation(len(tiles))
    shuffled = join_tiles(trimap, [tiles[i] for i in order], [alphas[i] for i in order])
    np.testing.assert_array_equal(shuffled, joined)
    assert (joined[~is_unknown(trimap)] == trimap[~is_unknown(trimap)]).all()


def test_sums_of_many_large_tiles_fit():
    trimap = np.full((512, 512), 128, np.uint8)
    white = np.full((512, 512), 255, np.uint8)
    joined = join_tiles(trimap, [Tile(0, 0, 512, 512)] * 200, [white] * 200)
    assert (joined == 255).all()


def test_a_photo_of_thousands_of_small_tiles_is_planned_at_once():
    """Joining takes the square of their number, and 96 pixels leave no coarser cells."""
    trimap = np.zeros((2400, 3200), np.uint8)
    trimap[::64] = 128
    began = time.monotonic()
    tiles = plan_tiles(trimap, 96)
    assert len(tiles) > 3000
    assert time.monotonic() - began < 2
