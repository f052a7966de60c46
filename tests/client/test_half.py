"""A large photo sent at half its size: what is sent, and what comes back."""

import cv2
import numpy as np
import pytest

from client.half import PRIOR_AT_HALF_SIZE, at_half_size
from client.matte import Matte
from matting.knn import knn_alpha


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (40, 60), (41, 61)])
def test_a_pixel_is_unknown_if_any_that_is_in_it_is(shape):
    """Whatever its value, and also where two known regions meet."""
    height, width = shape
    trimap = np.zeros(shape, np.uint8)
    trimap[:, width // 2 :] = 255
    trimap[height // 2, width - 1] = 254
    seen = []

    def answer(image, trimap):
        seen.append((image, trimap))
        return np.random.default_rng(0).integers(0, 256, trimap.shape, np.uint8)

    found = at_half_size(answer, np.zeros((*shape, 3), np.uint8), trimap)
    ((image, halved),) = seen
    assert image.shape == (*halved.shape, 3)
    assert halved.shape == ((height + 1) // 2, (width + 1) // 2)
    assert halved[height // 2 // 2, -1] not in (0, 255)
    meeting = width // 2
    if meeting % 2:
        assert not {*halved[:, meeting // 2]} & {0, 255}
    enlarged = cv2.resize(answer(image, halved), (width, height), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(found, np.where(trimap == 254, enlarged, trimap))


def test_only_large_photos_are_halved(standin, make_picture, expected_alpha, monkeypatch):
    """The stand-in answers with each pixel's own green."""
    small, large = make_picture(90, 70), make_picture(150, 200)
    monkeypatch.setattr("client.connection.HALVED_FROM", large[1].size)
    halved = at_half_size(expected_alpha, *large)
    expected = (
        knn_alpha(*small, expected_alpha(*small)),
        knn_alpha(*large, halved, PRIOR_AT_HALF_SIZE),
    )
    with Matte(standin.grpc_url) as matte:
        for picture, alpha in zip((small, large), expected, strict=True):
            np.testing.assert_array_equal(matte.alpha(*picture, half=True, tile="off"), alpha)
