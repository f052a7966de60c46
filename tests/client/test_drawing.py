"""Strokes and views of the page, without the page."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from client.page.drawing import (
    BRUSHES,
    MAX_SHAPES,
    ShapeError,
    draw_shapes,
    paint_trimap,
    shrink,
    tint,
)
from matting.trimaps import BACKGROUND, FOREGROUND, UNKNOWN


def layer(height, width, place=np.s_[:0], value=FOREGROUND, opacity=255):
    strokes = np.zeros((height, width, 4), np.uint8)
    strokes[place] = (*BRUSHES[value], opacity)
    return strokes


def test_strokes_replace_the_trimap_and_each_other():
    trimap = np.full((10, 12), UNKNOWN, np.uint8)
    first = layer(10, 12, np.s_[:5], FOREGROUND)
    second = layer(10, 12, np.s_[4:8], BACKGROUND)
    painted = paint_trimap(trimap, [first, second])
    assert painted[:, 0].tolist() == 4 * [FOREGROUND] + 4 * [BACKGROUND] + 2 * [UNKNOWN]
    assert (trimap == UNKNOWN).all()


def test_strokes_of_another_size_cover_the_same_part():
    painted = paint_trimap(np.zeros((300, 400), np.uint8), [layer(30, 40, np.s_[:15, 20:])])
    expected = np.zeros((300, 400), np.uint8)
    expected[:150, 200:] = FOREGROUND
    np.testing.assert_array_equal(painted, expected)


def test_the_faint_rim_of_a_stroke_paints_nothing():
    trimap = np.zeros((3, 3), np.uint8)
    assert not paint_trimap(trimap, [layer(3, 3, np.s_[:], opacity=127)]).any()
    assert paint_trimap(trimap, [layer(3, 3, np.s_[:], opacity=128)]).all()
    assert not paint_trimap(trimap, []).any()


@pytest.mark.parametrize("pair", list(combinations(BRUSHES, 2)))
def test_a_mixture_of_two_brushes_is_one_of_them(pair):
    share = np.linspace(0, 1, 101)[:, np.newaxis]
    one, other = (np.array(BRUSHES[value]) for value in pair)
    strokes = np.full((1, 101, 4), 255, np.uint8)
    strokes[0, :, :3] = np.rint(share * one + (1 - share) * other)
    painted = paint_trimap(np.zeros((1, 101), np.uint8), [strokes])[0]
    assert set(painted) == set(pair)
    assert (painted[:45] == pair[1]).all() and (painted[-45:] == pair[0]).all()


def test_shapes_are_ellipses_of_the_brushes():
    text = "subject 20 -50 60 150\n\n  Edges 40 10.5 80 90 \nbackground 50 40 60 60"
    painted = paint_trimap(np.zeros((200, 300), np.uint8), [draw_shapes(text, 200, 300)])
    y, x = np.mgrid[0.25:100:0.5, 1 / 6 : 100 : 1 / 3]
    expected = np.zeros((200, 300), np.uint8)
    expected[((x - 40) / 20) ** 2 + ((y - 50) / 100) ** 2 <= 1] = FOREGROUND
    expected[((x - 60) / 20) ** 2 + ((y - 50.25) / 39.75) ** 2 <= 1] = UNKNOWN
    expected[((x - 55) / 5) ** 2 + ((y - 50) / 10) ** 2 <= 1] = BACKGROUND
    assert (painted != expected).sum() <= 4  # on the very edge
    assert not draw_shapes(" \n", 2, 3).any()


@pytest.mark.parametrize(
    "line",
    [
        *("hair 20 10 80 95", "edges 20 10 80", "edges 20 10 80 95 1", "edges 20 10 80 nan"),
        *("edges 20 10 80 9999", "edges 80 10 20 95", "edges 20 10 80 10", "edges"),
    ],
)
def test_a_line_that_is_no_shape_is_named(line):
    with pytest.raises(ShapeError) as failure:
        draw_shapes(f"subject 1 2 3 4\n {line}", 10, 10)
    assert str(failure.value) == (
        f"line 2 of the shapes is {line!r}; expected subject, edges, background, then left, top, "
        "right and bottom in per cent, such as: edges 20 10 80 95"
    )


def test_too_many_shapes_are_refused():
    assert draw_shapes("edges 0 0 99 99\n" * MAX_SHAPES, 10, 10).any()
    with pytest.raises(ShapeError, match=f"{MAX_SHAPES + 1} shapes; expected at most"):
        draw_shapes("edges 0 0 1 1\n" * (MAX_SHAPES + 1), 10, 10)


def test_tint_shows_what_is_not_background():
    image = np.full((1, 3, 3), 100, np.uint8)
    tinted = tint(image, np.array([[BACKGROUND, UNKNOWN, FOREGROUND]], np.uint8))
    assert tinted[0].tolist() == [[100, 100, 100], [170, 164, 83], [50, 107, 139]]
    assert (image == 100).all()


@pytest.mark.parametrize(
    ("size", "shrunk"), [((50, 20), (50, 20)), ((400, 300), (100, 75)), ((1, 5000), (1, 100))]
)
def test_shrink(size, shrunk):
    assert shrink(np.zeros((*size, 3), np.uint8), 100).shape == (*shrunk, 3)
    trimap = np.random.default_rng(0).choice(np.array([0, 128, 255], np.uint8), size)
    small = shrink(trimap, 100, cv2.INTER_NEAREST)
    assert small.shape == shrunk and set(np.unique(small)) <= {0, 128, 255}
