"""The network as it is served: plain pixels in, plain pixels out, any size.

Everything that serving adds to the network is here, so the network never asks whether it is being
exported. Pooling is said with ONNX operators (`torch.onnx.ops.symbolic`), since they decide
how fast the graph runs, or whether TensorRT accepts it at all.
"""

import torch
from torch import Tensor, nn

from train.network import IMAGE_MEAN, IMAGE_STD, STRIDE, DeepImageMatting

OPSET = 18
"""The newest of ONNX's that all targets read, TensorRT 8.6 with a warning."""


def symbolic(
    operator: str,
    inputs: list[Tensor],
    shape: tuple,
    dtype: torch.dtype | None = None,
    **attributes: int | str,
) -> Tensor:
    """Return one ONNX operator's output of the given shape; of the first input's type if None."""
    return torch.onnx.ops.symbolic(
        operator, inputs, attributes, dtype=dtype or inputs[0].dtype, shape=shape, version=OPSET
    )


def of_size(x: Tensor, shape: tuple) -> Tensor:
    """Return a tensor that the tracer takes to be of another shape; in the graph it is the same."""
    return symbolic("Identity", [x], shape)


class PhasePool(nn.Module):
    """2x2 max pooling without an index output, which TensorRT does not have.

    A window's four pixels become four channels, its phases, in reading order. The position of the
    maximum is three masks: the first phase equals the maximum, the second does, the third does.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        n, c, h, w = x.shape
        phases = symbolic("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2)
        first, second, third, fourth = torch.split(phases, c, dim=1)
        maximum = symbolic("Max", [first, second, third, fourth], first.shape)
        # Not `==`, for which torch exports two casts to FP32 where the network computes in FP16.
        first, second, third = (
            symbolic("Equal", [phase, maximum], first.shape, torch.bool)
            for phase in (first, second, third)
        )
        return maximum, (first, second, third)


class PhaseUnpool(nn.Module):
    """Undoes `PhasePool`: every value goes to the first phase that was the maximum."""

    def forward(self, x: Tensor, is_maximum: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        n, c, h, w = x.shape
        phases, rest = [], x
        for mask in is_maximum:
            phases.append(torch.where(mask, rest, 0))
            rest = torch.where(mask, 0, rest)
        stacked = torch.cat([*phases, rest], dim=1)
        return symbolic("DepthToSpace", [stacked], (n, c, 2 * h, 2 * w), blocksize=2, mode="DCR")


def reflected(size: int) -> Tensor:
    """Return the indices 0, 1, ..., size-1, size-2, ... of an axis padded to a multiple of 32.

    As `numpy.pad(mode="reflect")` at the end of the axis, again and again where that is short. Not
    `train.predict`'s function: that is the reference, which the exported graph is held against.
    """
    position = torch.arange((size + STRIDE - 1) // STRIDE * STRIDE)
    # A tensor, since the exporter does not translate a remainder by a symbolic number.
    period = position.new_full((1,), 2 * size - 2).clamp(min=1)
    position = position % period
    return torch.minimum(position, period - position)


class ServedMatting(nn.Module):
    """The wire contract around a network: uint8 N×H×W×3 and N×H×W×1 in, uint8 N×H×W×1 out.

    Follows mmediting's test pipeline (pad by reflection on the right and below, normalise, predict,
    crop, take the trimap's word where it has one, round half to even); but all that is unknown is
    128 to the network, as in `train.predict`. The network computes in its
    parameters' type, normalisation before it and the sigmoid after it in FP32. Both cost
    nothing, and in FP16 would add roundings: near white, alpha * 255 would know steps of 1/8 only.
    """

    def __init__(self, network: DeepImageMatting) -> None:
        super().__init__()
        self.network = network
        network.backbone.encoder.pool = PhasePool()
        network.backbone.decoder.unpool = PhaseUnpool()
        scale = torch.tensor([1 / (255 * s) for s in IMAGE_STD] + [1 / 255])
        shift = torch.tensor([-m / s for m, s in zip(IMAGE_MEAN, IMAGE_STD, strict=True)] + [0.0])
        self.register_buffer("scale", scale.view(1, 4, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, 4, 1, 1), persistent=False)

    def forward(self, image: Tensor, trimap: Tensor) -> Tensor:
        _, height, width, _ = image.shape
        # TensorRT takes uint8 at the very edge only: cast before anything else.
        image, trimap = image.float(), trimap.float()
        background, foreground = trimap == 0, trimap == 255
        trimap = torch.where(background, 0.0, torch.where(foreground, 255.0, 128.0))
        x = torch.cat([image, trimap], dim=3)
        x = x.index_select(1, reflected(height)).index_select(2, reflected(width))
        x = x.permute(0, 3, 1, 2) * self.scale + self.shift
        alpha = self.alpha(x)[:, :, :height, :width].permute(0, 2, 3, 1)
        alpha = torch.round(alpha * 255)
        alpha = torch.where(background, 0, torch.where(foreground, 255, alpha))
        return alpha.to(torch.uint8)

    def alpha(self, x: Tensor) -> Tensor:
        """Return N×1×H×W alpha in 0..1 of the normalised N×4×H×W input.

        The network is traced at one size, for no operator in it says a size, and symbolic ones take
        four times as long. `export.graph` drops what the graph notes of it.
        """
        backbone, refiner = self.network.backbone, self.network.refiner
        n, c, h, w = x.shape
        x = of_size(x.to(backbone.encoder.conv6.weight.dtype), (2, c, 64, 96))
        logit = backbone(x)
        if refiner is not None:
            logit = refiner(x[:, :3], logit)
        return of_size(logit, (n, 1, h, w)).float().sigmoid()
