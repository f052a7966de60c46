"""Alphas that agree with their neighbours: what is solved, and that it helps."""

import tracemalloc

import numpy as np
import pytest

from matting.knn import LEAF, NEIGHBOURS, PRIOR, TRIM, knn_alpha


@pytest.fixture
def noise():
    """Numbers of 0 to 255 for a picture of 4 x 4."""
    return np.random.default_rng(0).integers(0, 256, (4, 4, 4), np.uint8)


def test_it_is_the_least_of_the_stated_sum(noise):
    """Solved again with dense matrices; so few pixels are all compared one by one."""
    image, trimap = noise[..., :3], np.uint8([[0] * 4, [128] * 4, [128] * 4, [255] * 4])
    assert trimap.size <= LEAF
    alpha = np.where(trimap == 128, noise[..., 3], trimap)
    free = np.flatnonzero(trimap == 128)
    colours = image.reshape(-1, 3) / 255
    places = np.indices(trimap.shape).reshape(2, -1).T / 4
    system, target = np.diag(np.full(trimap.size, PRIOR)), PRIOR * alpha.ravel() / 255
    for count, distance in NEIGHBOURS:
        features = np.hstack([colours, places * distance])
        for pixel in free:
            apart = np.linalg.norm(features - features[pixel], axis=1)
            for other in np.argsort(apart)[:count]:
                edge = np.zeros(trimap.size)
                edge[pixel] += 1
                edge[other] -= 1
                system += np.outer(edge, edge)
    known = np.setdiff1d(np.arange(trimap.size), free)
    fixed = alpha.ravel()[known] / 255
    target = target[free] - system[np.ix_(free, known)] @ fixed
    solved = np.linalg.solve(system[np.ix_(free, free)], target)
    expected = alpha.copy()
    expected.ravel()[free] = np.rint(np.clip((solved - TRIM) / (1 - 2 * TRIM), 0, 1) * 255)
    found = knn_alpha(image, trimap, alpha)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), rtol=0, atol=1)
    np.testing.assert_array_equal(found.ravel()[known], alpha.ravel()[known])


def test_it_can_be_stopped_in_both_steps(noise):
    checks = []
    trimap = np.full((4, 4), 128, np.uint8)
    knn_alpha(noise[..., :3], trimap, noise[..., 3], check=lambda: checks.append(1))
    assert len(checks) > len(NEIGHBOURS)  # searches for neighbours, and then iterations
    with pytest.raises(KeyError):
        knn_alpha(noise[..., :3], trimap, noise[..., 3], check={}.popitem)


def test_gaps_that_were_filled_open():
    """Every fifth column of a fence is background, and the network took all for the fence."""
    truth = np.zeros((60, 80), np.uint8)
    truth[10:50, 10:70] = np.where(np.arange(60) % 5 == 0, 0, 255)
    noise = np.random.default_rng(0).integers(0, 20, (60, 80, 3))
    image = (np.where(truth[..., None], (150, 90, 60), (60, 110, 180)) + noise).astype(np.uint8)
    trimap = truth.copy()
    trimap[6:54, 30:70] = 128
    filled = truth.copy()
    filled[10:50, 30:70] = 255
    found = knn_alpha(image, trimap, filled)
    unknown = trimap == 128
    before, after = (
        np.abs(alpha.astype(int) - truth)[unknown].mean() / 255 for alpha in (filled, found)
    )
    assert before > 0.16
    assert after < 0.85 * before


@pytest.mark.parametrize(("given", "expected"), [(0, 0), (99, 96), (200, 208), (255, 255)])
@pytest.mark.parametrize("height", [1, 2, 40])
def test_few_pixels_and_one_colour(height, given, expected):
    """What is left is to trim it."""
    image, trimap = np.zeros((height, 1, 3), np.uint8), np.full((height, 1), 128, np.uint8)
    assert (knn_alpha(image, trimap, np.full_like(trimap, given)) == expected).all()


def test_memory():
    """A photo of 50 megapixels may have ten that are unknown."""
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    trimap = np.full(image.shape[:2], 128, np.uint8)
    tracemalloc.start()
    knn_alpha(image, trimap, image[..., 1])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 250 * trimap.size  # bytes; 191 were measured


def test_nothing_unknown(noise):
    image, trimap = noise[..., :3], np.uint8([[0] * 4] * 2 + [[255] * 4] * 2)
    np.testing.assert_array_equal(knn_alpha(image, trimap, trimap), trimap)
