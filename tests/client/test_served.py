"""The library against the model that the repository ships, served by Triton."""

from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest

from client.matte import Matte
from client.tiles import join_tiles, plan_tiles
from matting.compositing import composite
from matting.metrics import sad
from matting.trimaps import trimap_from_alpha

MODEL = Path(__file__).parents[2] / "model_repository" / "dim" / "1" / "model.onnx"


@pytest.fixture(scope="module")
def blurred_disc():
    """A soft orange disc on a blue gradient: image, trimap and the true alpha."""
    disc = cv2.circle(np.zeros((150, 170), np.uint8), (85, 75), 50, 255, cv2.FILLED)
    alpha = cv2.GaussianBlur(disc, (0, 0), 4)
    ramp = np.linspace(0, 255, 170).astype(np.uint8)
    background = np.dstack(np.broadcast_arrays(np.uint8(20), ramp // 4, ramp))
    background = np.broadcast_to(background, (150, 170, 3))
    foreground = np.full((150, 170, 3), (250, 140, 20), np.uint8)
    image = composite(alpha, foreground, background)
    return image, trimap_from_alpha(alpha, 9, 9), alpha


@pytest.fixture(scope="module")
def network():
    """The model without a server: image, trimap -> alpha."""
    compiled = openvino.compile_model(MODEL, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def run(image, trimap):
        inputs = {"image": image[np.newaxis], "trimap": trimap[np.newaxis, ..., np.newaxis]}
        return compiled(inputs)["alpha"][0, ..., 0]

    return run


def test_alpha_is_what_the_network_says(server, network, blurred_disc):
    image, trimap, _ = blurred_disc
    with Matte(server.grpc_url) as matte:
        alpha = matte.alpha(image, trimap)
    np.testing.assert_array_equal(alpha, network(image, trimap))


def test_tiles_are_what_the_network_says(server, network, blurred_disc):
    image, trimap, _ = blurred_disc
    trimap = np.vstack([trimap[:60], np.zeros_like(trimap[60:])])  # fewer tiles
    with Matte(server.grpc_url) as matte:
        alpha = matte.alpha(image, trimap, tile=96)
    tiles = plan_tiles(trimap, 96)
    alphas = (network(tile.cut(image), tile.cut(trimap)) for tile in tiles)
    np.testing.assert_array_equal(alpha, join_tiles(trimap, tiles, alphas))


def test_alpha_is_a_matte(server, blurred_disc):
    image, trimap, truth = blurred_disc
    with Matte(server.grpc_url) as matte:
        alpha = matte.alpha(image, trimap)
    known = trimap != 128
    np.testing.assert_array_equal(alpha[known], trimap[known])
    assert sad(alpha, truth, trimap) < sad(trimap, truth, trimap) / 2  # 128 where it is unknown
