"""Where training starts: VGG16 in the encoder, and a trimap that reaches the first alpha."""

import numpy as np
import pytest
import torch

from matting.metrics import sad
from train.baselines import blend_by_distance
from train.checkpoint import CheckpointError
from train.initialise import convolutions, randomise, start_from_vgg16
from train.network import DeepImageMatting
from train.predict import predict_alpha

VGG16 = {
    **{0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256)},
    **{14: (256, 256), 17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512)},
    **{26: (512, 512), 28: (512, 512)},
}
"""Channels of torchvision's convolutions, by their number."""


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory):
    """A file like torchvision's, of random weights that keep the signal's size."""
    random, arrays = np.random.default_rng(0), {}
    for number, (inputs, outputs) in VGG16.items():
        weight = random.standard_normal((outputs, inputs, 3, 3), np.float32)
        arrays[f"features.{number}.weight"] = weight * np.float32(np.sqrt(2 / (9 * inputs)))
        arrays[f"features.{number}.bias"] = random.standard_normal(outputs, np.float32) * 0.01
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def network(vgg16):
    network = DeepImageMatting(refiner=False)
    randomise(network, seed=0)
    start_from_vgg16(network, vgg16)
    return network.eval()


def test_vgg16_fills_the_encoder_but_for_two_channels_of_a_layer(network, vgg16):
    layers = convolutions(network.backbone.encoder)[:13]
    with np.load(vgg16) as stored:
        for layer, number in zip(layers, VGG16, strict=True):
            expected = torch.from_numpy(stored[f"features.{number}.weight"])
            same = (layer.weight[:, : expected.shape[1]] == expected).flatten(1).all(dim=1)
            assert same.sum() == len(same) - 2
            if number == 0:  # its fourth channel is the trimap's
                grey = expected[same].mean(dim=1)
                torch.testing.assert_close(layer.weight[same, 3], grey)


def test_signals_keep_their_size_through_unpooling():
    network, sizes = DeepImageMatting(refiner=False), []
    randomise(network, seed=0)
    for layer in convolutions(network.backbone.decoder)[:-1]:  # the last makes a small logit
        layer.register_forward_hook(lambda _, __, output: sizes.append(output.std().item()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network(*(torch.randn(1, channels, 96, 96, generator=generator) for channels in (3, 1)))
    assert len(sizes) == 6
    assert max(sizes) < 2 * min(sizes)


def test_torchvisions_own_file_does_as_well(network, vgg16, tmp_path):
    """With the classifier, which is left out."""
    with np.load(vgg16) as stored:
        state = {name: torch.from_numpy(value) for name, value in stored.items()}
    path = tmp_path / "vgg16.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(5, 5)}, path)
    other = DeepImageMatting(refiner=False)
    randomise(other, seed=0)
    start_from_vgg16(other, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_another_file_is_one_line(vgg16, tmp_path):
    with np.load(vgg16) as stored:
        np.savez(tmp_path / "other.npz", **{**stored, "features.28.weight": np.zeros(5)})
    np.savez(tmp_path / "objects.npz", np.array([{}]))
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(5))
    for name in ("junk.npz", "junk.pth"):
        (tmp_path / name).write_text("junk")
    network = DeepImageMatting(refiner=False)
    for name, complaint in (
        ("junk.npz", "not a checkpoint"),
        ("junk.pth", "not a checkpoint"),
        ("array.npz", "not a checkpoint"),
        ("objects.npz", "not a checkpoint"),
        ("other.npz", "not VGG16 under torchvision's names"),
    ):
        with pytest.raises(CheckpointError, match=rf"^[^\n]*{name}: {complaint}[^\n]*$"):
            start_from_vgg16(network, tmp_path / name)


def test_the_first_alpha_is_a_blend_of_the_known_regions(network):
    trimap = np.full((128, 128), 128, np.uint8)
    trimap[:, :40], trimap[:, 88:] = 0, 255
    image = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(trimap)[None, None]
    alpha = predict_alpha(network, *pixels)[0, 0].numpy()
    assert alpha[:, 40:44].mean() < 85
    assert alpha[:, 84:88].mean() > 170
    blend, half = blend_by_distance(image, trimap), np.where(trimap == 128, 128, trimap)
    assert sad(alpha, blend, trimap) < 0.75 * sad(half.astype(np.uint8), blend, trimap)


def test_random_parameters_follow_the_seed():
    networks = [DeepImageMatting() for _ in range(3)]
    for network, seed in zip(networks, (5, 5, 6), strict=True):
        randomise(network, seed)
    first, same, other = (network.refiner.refine_conv1.weight for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
