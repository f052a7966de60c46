"""From plain pixels to plain pixels in PyTorch: what every exported model is compared with."""

import torch
from torch import Tensor

from train.network import IMAGE_MEAN, IMAGE_STD, STRIDE, DeepImageMatting


@torch.no_grad()
def predict_alpha(network: DeepImageMatting, image: Tensor, trimap: Tensor) -> Tensor:
    """Return alpha as mmediting's test does: pad, predict, crop, take the trimap's word, round.

    Parameters
    ----------
    image : N×3×H×W uint8 RGB
    trimap : N×1×H×W uint8
        0 background, 255 foreground, all else unknown.

    Returns
    -------
    N×1×H×W uint8
    """
    height, width = image.shape[-2:]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    mean, std = (
        torch.tensor(v, device=image.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD)
    )
    padded = reflect(image.float() / 255, padding)
    coarse, refined = network((padded - mean) / std, reflect(trimap.float() / 255, padding))
    alpha = (coarse if refined is None else refined)[..., :height, :width].float()
    alpha = torch.where(trimap == 0, 0.0, torch.where(trimap == 255, 1.0, alpha))
    return (alpha * 255).round().to(torch.uint8)


def reflect(image: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Pad by reflection, in rounds where the image is smaller than the padding, as NumPy does."""
    _, right, _, bottom = padding
    rows = reflected_indices(image.shape[-2], bottom, image.device)
    columns = reflected_indices(image.shape[-1], right, image.device)
    return image[..., rows, :][..., columns]


def reflected_indices(size: int, extra: int, device: torch.device) -> Tensor:
    """Return 0, 1, ..., size-1, size-2, ..., 0, 1, ... of length size + extra."""
    period = max(2 * size - 2, 1)
    index = torch.arange(size + extra, device=device) % period
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
