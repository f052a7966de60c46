"""The network computes what mmediting computes with the same weights."""

import json

import cv2
import numpy as np
import pytest
import torch

from matting.metrics import evaluate
from train.network import DeepImageMatting
from train.predict import predict_alpha


def expected_alpha(oracle, stage, name):
    path = oracle / "infer" / f"stage{stage}_{name}_raw.png"
    return torch.from_numpy(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / np.float64(65535))


@pytest.fixture(scope="module", params=[1, 3])
def stage(request):
    return request.param


@pytest.fixture(scope="module", params=["a_320x320", "b_353x470"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def prediction(oracle_network, picture, stage, name):
    """The network's own output, and the final alpha that came of it."""
    network, (image, trimap, _) = oracle_network(stage), picture(name)
    outputs = []
    network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    final = predict_alpha(network, image, trimap)
    coarse, refined = outputs.pop()
    return coarse if stage == 1 else refined, final


def test_parameters_have_mmeditings_names_shapes_and_order(oracle_state, stage):
    own = DeepImageMatting(refiner=stage > 1).state_dict()
    assert [(name, tuple(value.shape)) for name, value in own.items()] == [
        (name, value.shape) for name, value in oracle_state(stage).items()
    ]


def test_alpha_is_mmeditings(oracle, prediction, stage, name):
    """Near-ties in a pooling window fall either way, so the mean and a percentile are bounded."""
    alpha, _ = prediction
    difference = (alpha[0, 0] - expected_alpha(oracle, stage, name)).abs()
    assert difference.mean() <= 5e-4
    assert difference.quantile(0.99) <= 1e-2


def test_metrics_of_the_final_alpha_are_mmeditings(oracle, picture, prediction, stage, name):
    (_, trimap, truth), (_, alpha) = picture(name), prediction
    figures = evaluate(*(pixels[0, 0].numpy() for pixels in (alpha, truth, trimap)))
    expected = json.loads((oracle / "infer/metrics.json").read_text())[f"stage{stage}"][name]
    assert figures == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def test_decoder_alone_with_mmeditings_pooling_positions(oracle, oracle_network):
    """Nothing can fall the other way here: every pixel is as close as rounding allows."""
    with np.load(oracle / "infer/stage1_a_320x320_decoder.npz") as stored:
        encoded = torch.from_numpy(stored["encoder_out"])
        positions = [
            plane_positions(stored[f"max_idx_{layer}"], channels, 320 >> layer)
            for layer, channels in enumerate((64, 128, 256, 512, 512), start=1)
        ]
    alpha = oracle_network(1).backbone.decoder(encoded, positions).sigmoid()[0, 0]
    assert (alpha - expected_alpha(oracle, 1, "a_320x320")).abs().max() <= 1e-4


def plane_positions(packed, channels, side):
    """Unpack two bits a window (0..3, in reading order) to places in the plane that was pooled."""
    bits = torch.from_numpy(np.unpackbits(packed)).view(channels, side, side, 2).long()
    rows = 2 * torch.arange(side).view(-1, 1) + bits[..., 0]
    columns = 2 * torch.arange(side) + bits[..., 1]
    return (rows * 2 * side + columns)[None]
