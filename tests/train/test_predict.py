"""From pixels to pixels: padding, the trimap's word, and any size from one pixel."""

import numpy as np
import pytest
import torch

from matting.trimaps import ternary
from train.predict import normalise, predict_alpha, prepare


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (5, 33), (31, 32), (64, 32)])
def test_padding_is_numpys_reflection_to_a_multiple_of_32(size):
    height, width = size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 3, height, width), np.uint8)
    trimap = rng.integers(0, 256, (1, 1, height, width), np.uint8)
    padding = ((0, 0), (0, 0), (0, -height % 32), (0, -width % 32))
    expected = [
        torch.from_numpy(np.pad(pixels, padding, mode="reflect")).float() / 255
        for pixels in (image, ternary(trimap))
    ]
    padded, padded_trimap = prepare(torch.from_numpy(image), torch.from_numpy(trimap))
    torch.testing.assert_close(padded, normalise(expected[0]), rtol=0, atol=0)
    torch.testing.assert_close(padded_trimap, expected[1], rtol=0, atol=0)


def test_known_pixels_are_the_trimaps_and_batches_do_not_mix(oracle_network):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (2, 3, 37, 53), dtype=torch.uint8, generator=generator)
    trimap = torch.tensor([0, 1, 128, 254, 255], dtype=torch.uint8)[
        torch.randint(5, (2, 1, 37, 53), generator=generator)
    ]
    network = oracle_network(3)
    alpha = predict_alpha(network, image, trimap)
    assert alpha.shape == trimap.shape
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 255).all()
    for unknown in (1, 128, 254):  # the network decides: many answers
        assert alpha[trimap == unknown].unique().numel() > 10
    usual = torch.from_numpy(ternary(trimap.numpy()))
    assert torch.equal(predict_alpha(network, image, usual), alpha)
    alone = torch.cat([predict_alpha(network, image[i, None], trimap[i, None]) for i in (0, 1)])
    assert (alpha.float() - alone.float()).abs().mean() <= 5e-4 * 255


def test_one_pixel(oracle_network):
    """Is seen as a picture of this colour alone."""
    image = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    trimap = torch.full((1, 1, 32, 32), 128, dtype=torch.uint8)
    network = oracle_network(1)
    alpha = predict_alpha(network, image[..., :1, :1], trimap[..., :1, :1])
    assert torch.equal(alpha, predict_alpha(network, image, trimap)[..., :1, :1])
