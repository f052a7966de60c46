"""From plain pixels to plain pixels in PyTorch: what every exported model is compared with."""

import torch
from torch import Tensor

from train.network import IMAGE_MEAN, IMAGE_STD, STRIDE, DeepImageMatting


def predict_alpha(network: DeepImageMatting, image: Tensor, trimap: Tensor) -> Tensor:
    """Return alpha as mmediting's test does: pad, predict, crop, apply the trimap, round.

    What is not a number becomes 0; `predict_unrounded` keeps it.

    Parameters
    ----------
    image : N×3×H×W uint8
        RGB, of any size from one pixel.
    trimap : N×1×H×W uint8
        0 background, 255 foreground, all else unknown, whatever its value (mmediting's network
        sees that value).

    Returns
    -------
    N×1×H×W uint8
        0 and 255 where the trimap says so. The refined alpha if the network has a refiner.
    """
    return to_pixels(predict_unrounded(network, image, trimap))


@torch.no_grad()
def predict_unrounded(network: DeepImageMatting, image: Tensor, trimap: Tensor) -> Tensor:
    """Return `predict_alpha` before it is rounded: N×1×H×W FP32, 0..1."""
    height, width = image.shape[-2:]
    coarse, refined = network(*prepare(image, trimap))
    alpha = (coarse if refined is None else refined)[..., :height, :width].float()
    return torch.where(trimap == 0, 0.0, torch.where(trimap == 255, 1.0, alpha))


def to_pixels(alpha: Tensor) -> Tensor:
    """Turn 0..1 into 0..255, uint8."""
    return (alpha * 255).round().to(torch.uint8)


def prepare(image: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor]:
    """Turn pixels (see `predict_alpha`) into the network's input: scaled, padded, normalised.

    Height and width become multiples of `STRIDE` by reflection at the right and at the bottom.
    All that is unknown becomes 128: the network has seen no other value, and trusts one near 255.
    """
    trimap = torch.where((trimap == 0) | (trimap == 255), trimap, 128)
    height, width = image.shape[-2:]
    rows = reflected_indices(height, -(-height // STRIDE) * STRIDE, image.device)
    columns = reflected_indices(width, -(-width // STRIDE) * STRIDE, image.device)
    image, trimap = (pixels[..., rows, :][..., columns].float() / 255 for pixels in (image, trimap))
    return normalise(image), trimap


def normalise(image: Tensor) -> Tensor:
    """Subtract ImageNet's mean from N×3×H×W RGB in 0..1 and divide by its standard deviation."""
    mean, std = (image.new_tensor(value).view(3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
    return (image - mean) / std


def reflected_indices(size: int, padded: int, device: torch.device) -> Tensor:
    """Return 0, 1, ..., size-1, size-2, ..., 0, 1, ... of length `padded`, as NumPy pads.

    Unlike `F.pad`, this reflects again and again where the padding is wider than the image.
    """
    if size == 1:
        return torch.zeros(padded, dtype=torch.long, device=device)
    index = torch.arange(padded, device=device) % (2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index)
