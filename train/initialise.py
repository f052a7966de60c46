"""Where the parameters start.

The encoder starts from ImageNet's VGG16. Every other convolution starts at random so that
activations keep their size through ReLU and through unpooling, which leaves three of four values
at zero. mmediting's Xavier start shrinks the signal about eightfold (in power) at each unpooling;
over its million iterations that is forgotten, over a short schedule it is not.

Two channels of every layer then carry the trimap through the whole network: one the known
foreground, one the known background. The decoder's copies blur them, and the first alpha is a soft
blend of the two known regions instead of one half everywhere. A short schedule needs this: the
bottleneck is 32 times smaller than the image, and learning to bring the trimap through fifteen
layers costs thousands of samples before anything about the photograph is learnt.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.checkpoint import CheckpointError, differences, read_state
from train.network import DeepImageMatting, Encoder

VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Numbers of torchvision's convolutions: `features.0.weight`, `features.0.bias`, ..."""

CARRIED = 2.0
"""What a carrier channel holds where the trimap is known: about the size of VGG16's activations."""

FIRST_LOGIT = 3.0
"""Logit of the first alpha well inside the known foreground."""


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


@torch.no_grad()
def randomise(network: DeepImageMatting, seed: int) -> None:
    """Draw all parameters so that signals keep their size and the first refinement is small."""
    generator = torch.Generator().manual_seed(seed)
    unpooled = set(convolutions(network.backbone.decoder)[1:-1])
    for layer in convolutions(network):
        kept = 0.25 if layer in unpooled else 1.0
        fan_in = math.prod(layer.weight.shape[1:])
        layer.weight.normal_(std=math.sqrt(2 / (kept * fan_in)), generator=generator)
        layer.bias.zero_()
    network.backbone.decoder.deconv1.weight.mul_(0.1)
    if network.refiner is not None:
        network.refiner.refine_pred.weight.mul_(0.1)


@torch.no_grad()
def start_from_vgg16(network: DeepImageMatting, vgg16: Path) -> None:
    """Put VGG16 into the encoder and the trimap's carriers into encoder and decoder.

    `vgg16` is torchvision's file, or an npz of its arrays by name. Raises `CheckpointError`.
    """
    load_vgg16(network.backbone.encoder, vgg16)
    carry_trimap(network)


def load_vgg16(encoder: Encoder, path: Path) -> None:
    """Copy torchvision's 13 VGG16 convolutions; the trimap's channel starts as a grey image's."""
    parameters = {}
    for number, layer in zip(VGG16, convolutions(encoder)[:13], strict=True):
        parameters[f"features.{number}.weight"] = layer.weight
        parameters[f"features.{number}.bias"] = layer.bias
    first = encoder.layer1[0].weight
    parameters["features.0.weight"] = first[:, :3]
    stored = {n: value for n, value in read_state(path).items() if n.startswith("features.")}
    if differences(parameters, stored):
        raise CheckpointError(
            f"{path}: not VGG16 under torchvision's names, features.0.weight and so on; "
            "docs/training.md says where to get it"
        )
    for name, parameter in parameters.items():
        parameter.copy_(stored[name])
    first[:, 3] = first[:, :3].mean(dim=1)


def carry_trimap(network: DeepImageMatting) -> None:
    """Give two channels of every layer to the known foreground and the known background.

    They are the same two in all layers, because unpooling writes every channel to where its own
    maxima were.
    """
    encoder, decoder = network.backbone.encoder, network.backbone.decoder
    identity, blur = torch.ones(1, 1), gaussian(5, sigma=1.2) * 4
    first, *rest = convolutions(encoder)
    carriers = least_used(rest[0])
    for channel, (slope, offset) in zip(carriers, ((4, -3), (-4, 1)), strict=True):
        first.weight[channel] = 0
        first.weight[channel, 3, 1, 1] = slope * CARRIED
        first.bias[channel] = offset * CARRIED
    *blurring, last = convolutions(decoder)[1:]
    for layers, kernel in (([*rest, decoder.deconv6_1], identity), (blurring, blur)):
        for layer in layers:
            pad = (layer.kernel_size[0] - len(kernel)) // 2
            layer.weight[carriers] = 0
            layer.weight[carriers, carriers] = F.pad(kernel, (pad,) * 4)
            layer.bias[carriers] = 0
    for channel, sign in zip(carriers, (1, -1), strict=True):
        last.weight[0, channel, 2, 2] = sign * FIRST_LOGIT / CARRIED


def least_used(layer: nn.Conv2d) -> list[int]:
    """Return the two input channels to which the layer gives the smallest weights."""
    return layer.weight.square().sum(dim=(0, 2, 3)).argsort()[:2].tolist()


def gaussian(size: int, sigma: float) -> Tensor:
    """Return a size×size kernel that sums to one."""
    line = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()
