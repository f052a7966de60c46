"""A photo matted from several views: what is sent, and that the answers' mean comes back."""

import numpy as np
import pytest

from client.matte import Matte
from client.views import mean_over_views, view


@pytest.fixture
def picture(make_picture):
    return make_picture(70, 90)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_views_are_four_and_their_own_inverses(shape):
    pixels = np.arange(np.prod(shape)).reshape(shape)
    views = [view(pixels, number) for number in range(4)]
    np.testing.assert_array_equal(views[1], np.fliplr(pixels))
    np.testing.assert_array_equal(views[2], np.flipud(pixels))
    np.testing.assert_array_equal(views[3], np.rot90(pixels, 2))
    for number, seen in enumerate(views):
        np.testing.assert_array_equal(view(seen, number), pixels)


def test_the_mean_is_rounded_half_up_and_does_not_overflow(picture):
    answers = iter([255, 255, 254, 253])
    alpha = mean_over_views(lambda _, trimap: np.full_like(trimap, next(answers)), *picture, 4)
    assert alpha.dtype == np.uint8
    assert (alpha == 254).all()  # of 254.25
    answers = iter([0, 1])
    alpha = mean_over_views(lambda _, trimap: np.full_like(trimap, next(answers)), *picture, 2)
    assert (alpha == 1).all()


@pytest.mark.parametrize("views", [1, 2, 4])
@pytest.mark.parametrize("tile", ["off", 96])
def test_every_view_is_sent_and_turned_back(
    standin, asked, make_picture, expected_alpha, views, tile
):
    """The stand-in answers with each pixel's own green, from whatever side."""
    image, trimap = make_picture(80, 90)
    with Matte(standin.grpc_url) as matte:
        alpha = matte.alpha(image, trimap, tile, views=views)
    np.testing.assert_array_equal(alpha, expected_alpha(image, trimap))
    assert asked() == views


@pytest.mark.parametrize("views", [0, 3])
def test_other_numbers_are_refused(standin, asked, picture, views):
    with (
        Matte(standin.grpc_url) as matte,
        pytest.raises(ValueError, match=rf"{views} views: expected one of \(1, 2, 4\)"),
    ):
        matte.alpha(*picture, views=views)
    assert asked() == 0
