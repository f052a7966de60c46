"""Deep Image Matting (Xu et al., CVPR 2017), figure 3, as mmediting 0.16.1 builds it.

Two places where mmediting leaves the paper, kept because the published weights need them:
conv6 is 1x1 (paper: 7x7), and the refiner corrects the logit of alpha (paper: alpha itself).
Parameter names and shapes are mmediting's, so its checkpoints load unchanged.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 32
"""Height and width of the network's input are multiples of this: five poolings by two."""

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB in 0..1; images are normalised by them."""


def conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """Return a convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


def conv_block(*channels: int) -> nn.Sequential:
    """Return one VGG16 block, 3x3 convolutions each followed by ReLU, without its pooling."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [conv(inputs, outputs, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """VGG16 without its classifier; the fourth input channel is the trimap."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = conv_block(4, 64, 64)
        self.layer2 = conv_block(64, 128, 128)
        self.layer3 = conv_block(128, 256, 256, 256)
        self.layer4 = conv_block(256, 512, 512, 512)
        self.layer5 = conv_block(512, 512, 512, 512)
        self.conv6 = conv(512, 512, 1)
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode N×4×H×W to N×512×H/32×W/32 and the positions of the five poolings' maxima.

        Of equal values in a 2x2 window the first in reading order is the maximum. It matters:
        ReLU leaves whole windows at zero, and the decoder writes non-zero values there.
        """
        positions = []
        for block in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5):
            x, position = self.pool(block(x))
            positions.append(position)
        return F.relu(self.conv6(x)), positions


class Decoder(nn.Module):
    """Unpools to where the encoder's maxima were, with 5x5 convolutions between."""

    def __init__(self) -> None:
        super().__init__()
        self.deconv6_1 = conv(512, 512, 1)
        self.deconv5_1 = conv(512, 512, 5)
        self.deconv4_1 = conv(512, 256, 5)
        self.deconv3_1 = conv(256, 128, 5)
        self.deconv2_1 = conv(128, 64, 5)
        self.deconv1_1 = conv(64, 64, 5)
        self.deconv1 = conv(64, 1, 5)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x: Tensor, positions: list[Tensor]) -> Tensor:
        """Decode N×512×H/32×W/32 to the logit of alpha, N×1×H×W."""
        layers = (self.deconv6_1, self.deconv5_1, self.deconv4_1, self.deconv3_1, self.deconv2_1)
        for layer, position in zip(layers, reversed(positions), strict=True):
            x = self.unpool(F.relu(layer(x)), position)
        return self.deconv1(F.relu(self.deconv1_1(x)))


class EncoderDecoder(nn.Module):
    """The first stage of the paper."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(*self.encoder(x))


class Refiner(nn.Module):
    """The second stage: four convolutions that sharpen alpha, added to its logit."""

    def __init__(self) -> None:
        super().__init__()
        self.refine_conv1 = conv(4, 64, 3)
        self.refine_conv2 = conv(64, 64, 3)
        self.refine_conv3 = conv(64, 64, 3)
        self.refine_pred = conv(64, 1, 3)

    def forward(self, image: Tensor, logit: Tensor) -> Tensor:
        """Return the refined logit, N×1×H×W."""
        x = torch.cat([image, logit.sigmoid()], dim=1)
        x = F.relu(self.refine_conv1(x))
        x = F.relu(self.refine_conv2(x))
        x = F.relu(self.refine_conv3(x))
        return logit + self.refine_pred(x)


class DeepImageMatting(nn.Module):
    """The whole network.

    Parameters
    ----------
    refiner : bool
        With the refiner (stages 2 and 3), or the encoder-decoder alone (stage 1).
    """

    def __init__(self, refiner: bool = True) -> None:
        super().__init__()
        self.backbone = EncoderDecoder()
        self.refiner = Refiner() if refiner else None

    def forward(self, image: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict alpha.

        Parameters
        ----------
        image : N×3×H×W float
            RGB in 0..1, normalised by `IMAGE_MEAN` and `IMAGE_STD`; H, W multiples of `STRIDE`.
        trimap : N×1×H×W float
            0 background, 128/255 unknown, 1 foreground.

        Returns
        -------
        N×1×H×W, N×1×H×W or None
            Alpha in 0..1 of the encoder-decoder, and of the refiner where there is one.
        """
        logit = self.backbone(torch.cat([image, trimap], dim=1))
        refined = None if self.refiner is None else self.refiner(image, logit).sigmoid()
        return logit.sigmoid(), refined
