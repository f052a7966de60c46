"""JPEG compression and back, in batched torch: what a photograph went through before it comes here.

The standard's baseline scheme (ITU-T T.81) with the tables of its annex K, scaled by quality as
libjpeg scales them. The lossless part, which would make a file, is left out.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct
from torch import Tensor

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, *[99] * 4),
    (18, 21, 26, 66, *[99] * 4),
    (24, 26, 56, 99, *[99] * 4),
    (47, 66, 99, 99, *[99] * 4),
    *[(99,) * 8] * 4,
)
RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
# Not inverted on the device: a GPU would be waited for.
YCBCR_TO_RGB = torch.linalg.inv(torch.tensor(RGB_TO_YCBCR)).tolist()
BLOCK = 8
COSINES = torch.from_numpy(dct(np.eye(BLOCK), axis=0, norm="ortho")).float()
"""The matrix of the discrete cosine transform (DCT-II)."""


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """Return N×3×H×W RGB in 0..1 as it comes back from JPEG, in whole levels of 1/255.

    `quality` is N integers in 1..100 as libjpeg counts. Chroma has half the resolution (4:2:0),
    as most programs write it.
    """
    height, width = image.shape[-2:]
    right, below = (-size % (2 * BLOCK) for size in (width, height))
    levels = F.pad((image * 255).round(), (0, right, 0, below), mode="replicate")
    to_ycbcr = image.new_tensor(RGB_TO_YCBCR)
    ycbcr = torch.einsum("ij,njhw->nihw", to_ycbcr, levels)
    luma, chroma = ycbcr[:, :1] - 128, F.avg_pool2d(ycbcr[:, 1:], 2)
    luma = quantised(luma.round(), scaled(LUMA_TABLE, quality)) + 128
    chroma = quantised(chroma.round(), scaled(CHROMA_TABLE, quality))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    restored = torch.cat([luma, chroma], dim=1)
    rgb = torch.einsum("ij,njhw->nihw", to_ycbcr.new_tensor(YCBCR_TO_RGB), restored)
    return rgb[..., :height, :width].round().clamp(0, 255) / 255


def scaled(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Return libjpeg's table for each quality, N×8×8."""
    quality = quality.float().view(-1, 1, 1)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((quality.new_tensor(table) * percent + 50) / 100).floor().clamp(1, 255)


def quantised(planes: Tensor, tables: Tensor) -> Tensor:
    """Round the cosine transform of each 8×8 block of N×C×H×W to multiples of its table, N×8×8."""
    n, channels, height, width = planes.shape
    blocks = planes.view(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = blocks.transpose(3, 4).reshape(n, -1, BLOCK * BLOCK)
    # Rows and columns in one product of matrices: many small ones take far longer.
    transform = torch.kron(COSINES, COSINES).to(planes)
    steps = tables.to(planes).view(n, 1, BLOCK * BLOCK)
    coefficients = (blocks @ transform.T).div_(steps).round_().mul_(steps)
    restored = (coefficients @ transform).round_().clamp_(-128, 127)
    restored = restored.view(n, channels, height // BLOCK, width // BLOCK, BLOCK, BLOCK)
    return restored.transpose(3, 4).reshape(planes.shape)
