"""The repository's default model behind the real server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from server.launcher import Server

Infer = Callable[[Server, np.ndarray, np.ndarray], np.ndarray]
RandomPair = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 200), (64, 48)])
def test_known_pixels_are_exact(
    server: Server, infer: Infer, random_pair: RandomPair, height: int, width: int
) -> None:
    image, trimap = random_pair(height, width, seed=2)  # of which the one pixel is known
    alpha = infer(server, image, trimap)
    assert alpha.dtype == np.uint8 and alpha.shape == trimap.shape
    known = trimap != 128
    assert known.any()
    np.testing.assert_array_equal(alpha[known], trimap[known])


def test_company_changes_no_byte(server: Server, infer: Infer, random_pair: RandomPair) -> None:
    """Not that in a request, nor that of other requests. In bf16 it did, at this size."""
    images, trimaps = random_pair(192, 256, count=4)
    pairs = [(images[i : i + 1], trimaps[i : i + 1]) for i in range(len(images))]
    alone = np.concatenate([infer(server, *pair) for pair in pairs])
    np.testing.assert_array_equal(infer(server, images, trimaps), alone)
    with ThreadPoolExecutor(len(pairs)) as threads:
        at_once = list(threads.map(lambda pair: infer(server, *pair), pairs))
    np.testing.assert_array_equal(np.concatenate(at_once), alone)
