"""The repository's default model behind the real server."""

from collections.abc import Callable

import numpy as np
import pytest

from server.launcher import Server

Infer = Callable[[Server, np.ndarray, np.ndarray], np.ndarray]
RandomPair = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 200), (64, 48)])
def test_known_pixels_are_exact(
    server: Server, infer: Infer, random_pair: RandomPair, height: int, width: int
) -> None:
    image, trimap = random_pair(height, width)
    alpha = infer(server, image, trimap)
    assert alpha.dtype == np.uint8 and alpha.shape == trimap.shape
    known = trimap != 128
    np.testing.assert_array_equal(alpha[known], trimap[known])


def test_images_sent_together_get_what_they_get_alone(
    server: Server, infer: Infer, random_pair: RandomPair
) -> None:
    image, trimap = random_pair(64, 96, count=2)
    together = infer(server, image, trimap)
    alone = np.concatenate([infer(server, image[i : i + 1], trimap[i : i + 1]) for i in range(2)])
    np.testing.assert_array_equal(together, alone)
