"""Training samples made on the training device: crop, mix, composite, trimap, all in torch.

The recipe is the paper's (section 4.1) and mmediting's, except where few foregrounds ask for more
variety: a new composite for every sample, free zoom and rotation, two foregrounds in one sample,
holes, colour jitter, defocused backgrounds, sensor noise, JPEG, and trimaps of many widths; and
soft foregrounds are picked more often. Only the network's image gets noise and JPEG; the losses
compare with the clean composite.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import IterableDataset

from train.dataset import Foreground
from train.jpeg import jpeg
from train.predict import normalise

UNKNOWN = 128 / 255
FAR = 10_000
"""Pixels, where there is none to measure the distance to."""


@dataclass(frozen=True)
class Synthesis:
    """How samples are made; every range is drawn from uniformly (zooms: log-uniformly)."""

    crop: int = 320
    # How often a foreground is picked: in proportion to this power of its soft pixels' number, for
    # they are what is learnt. mmediting picks each equally often, which is 0.
    softness: float = 1.0
    # Source pixels per sample pixel. mmediting crops 320, 480 and 640 and resizes all to 320.
    foreground_zoom: tuple[float, float] = (0.4, 2.0)
    # Below one a background is enlarged and therefore soft, as out of focus.
    background_zoom: tuple[float, float] = (0.15, 2.0)
    rotation_degrees: float = 30.0
    two_foregrounds: float = 0.3
    # How often a foreground has holes through it, of the shape of another.
    holes: float = 0.2
    # Diameters of the elliptical kernels; mmediting draws 1..29. Hand-drawn trimaps are wider.
    trimap_kernel: tuple[int, int] = (1, 81)
    brightness: float = 0.2
    contrast: float = 0.25
    saturation: float = 0.3
    gamma: float = 0.3
    noise: float = 0.02
    # Most photographs were a JPEG once. Below 50 the blocks are plain to see.
    jpeg: float = 0.5
    jpeg_quality: tuple[int, int] = (50, 99)


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def soft_pixels(alpha: Tensor) -> Tensor:
    """Return the flat indices of what is neither 0 nor 255 in 1×H×W uint8, int32 on the CPU.

    A quarter of what rows and columns would take: large data sets have many.
    """
    return ((alpha > 0) & (alpha < 255)).flatten().nonzero()[:, 0].int().cpu()


def dilate(mask: Tensor, diameters: list[int]) -> Tensor:
    """Dilate each N×1×H×W mask by an ellipse of its own size, all at once.

    The ellipses are OpenCV's, whose even ones are not symmetric. Outside the image is empty.
    Each row of an ellipse is one run of pixels around its middle. So a pixel is reached where, in
    the row so far above or below it, the nearest pixel of the mask is not beyond the run's end.
    """
    reach, height = max(diameters) // 2, mask.shape[-2]
    left, right = (F.pad(far, (0, 0, reach, reach), value=FAR) for far in distances(mask[:, 0]))
    nearest = torch.minimum(left, right)
    # Subtracting and minimum: PyTorch compares small integers many times slower on a CPU.
    beyond = torch.full_like(left[:, :height], FAR)
    for row, runs in enumerate(ellipse_runs(diameters, reach).unbind(1)):
        to_left, to_right = runs.to(mask.device)[..., None, None].unbind(1)
        window = slice(row, row + height)
        if torch.equal(runs[:, 0], runs[:, 1]):
            torch.minimum(beyond, nearest[:, window] - to_left, out=beyond)
        else:
            torch.minimum(beyond, left[:, window] - to_left, out=beyond)
            torch.minimum(beyond, right[:, window] - to_right, out=beyond)
    return (beyond < 0)[:, None]


def distances(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far to the left and right the nearest pixel of N×H×W masks is, int16."""
    columns = torch.arange(mask.shape[-1], dtype=torch.int16, device=mask.device)
    before = torch.where(mask, columns, -FAR).cummax(-1).values
    after = torch.where(mask, columns, FAR).flip(-1).cummin(-1).values.flip(-1)
    return columns - before, after - columns


def ellipse_runs(diameters: list[int], reach: int) -> Tensor:
    """Return how far each row of OpenCV's ellipses goes to the left and right of their middle.

    Plus one, so that 0 is a row that the ellipse does not have: N × (2 reach + 1) × 2 int16.
    """
    runs = torch.zeros(len(diameters), 2 * reach + 1, 2, dtype=torch.int16)
    for lengths, size in zip(runs, diameters, strict=True):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        middle, above = size // 2, reach - size // 2
        to_left = middle - ellipse.argmax(axis=1) + 1
        to_right = ellipse.sum(axis=1) + 1 - to_left
        lengths[above : above + size] = torch.from_numpy(np.stack([to_left, to_right], axis=1))
    return runs


def make_trimaps(alpha: Tensor, inwards: list[int], outwards: list[int]) -> Tensor:
    """Return N×1×H×W trimaps in {0, 128/255, 1} of N×1×H×W alphas in 0..1.

    As mmediting's GenerateTrimap: foreground where alpha eroded by an ellipse is one, background
    where alpha dilated by an ellipse is zero. The ellipses' diameters are `inwards` and `outwards`.
    """
    trimap = torch.full_like(alpha, UNKNOWN)
    trimap[~dilate(alpha < 1, inwards)] = 1
    trimap[~dilate(alpha > 0, outwards)] = 0
    return trimap


def sample_window(
    source: Tensor,
    centre: tuple[float, float],
    zoom: float,
    degrees: float,
    flip: bool,
    size: int,
    padding: str,
) -> Tensor:
    """Cut a window out of a C×H×W uint8 picture, bilinearly; return C×size×size in 0..1.

    `centre` is y, x in pixels of the picture, and `zoom` how many of them make one of the window.
    `padding` is `grid_sample`'s, for what lies outside the picture.
    """
    cos, sin = math.cos(math.radians(degrees)) * zoom, math.sin(math.radians(degrees)) * zoom
    reach = math.ceil(size * (abs(cos) + abs(sin)) / 2) + 2
    top, left = max(int(centre[0]) - reach, 0), max(int(centre[1]) - reach, 0)
    patch = source[:, top : int(centre[0]) + reach, left : int(centre[1]) + reach].float()
    height, width = patch.shape[-2:]
    # Where the window's pixels are in the patch, in `grid_sample`'s -1..1. `affine_grid` takes
    # longer than the sampling.
    steps = torch.arange(size, device=patch.device) - (size - 1) / 2
    across = -steps if flip else steps
    x, y = centre[1] - left - steps * sin, centre[0] - top + steps * cos
    grid = patch.new_empty(size, size, 2)
    torch.add(across * (cos * 2 / width), (x * (2 / width) - 1)[:, None], out=grid[..., 0])
    torch.add(across * (sin * 2 / height), (y * (2 / height) - 1)[:, None], out=grid[..., 1])
    window = F.grid_sample(patch[None], grid[None], padding_mode=padding, align_corners=False)[0]
    return window / 255


def jitter(colour: Tensor, s: Synthesis, generator: torch.Generator) -> Tensor:
    """Change gamma, brightness, contrast and saturation of 3×H×W in 0..1."""
    colour = colour.clamp(1e-4, 1).pow_(math.exp(uniform(-s.gamma, s.gamma, generator)))
    saturation = 1 + uniform(-s.saturation, s.saturation, generator)
    contrast = 1 + uniform(-s.contrast, s.contrast, generator)
    brightness = 1 + uniform(-s.brightness, s.brightness, generator)
    # Each is linear, so all are one: away from grey, away from the middle, all brighter.
    gain = contrast * brightness
    grey = (colour[0] + colour[1] + colour[2]) / 3
    base = grey * ((1 - saturation) * gain) + (1 - contrast) * brightness / 2
    return torch.add(base, colour, alpha=saturation * gain).clamp_(0, 1)


class Samples(IterableDataset):
    """An endless stream of batches.

    Each batch is a dict of float32 tensors: `image` N×3×S×S normalised, `trimap` N×1×S×S in
    {0, 128/255, 1}, `alpha` and `unknown` N×1×S×S, `foreground`, `background`, `composite`
    N×3×S×S in 0..1. They are made where the pictures are. Batch `i` of seed `s` is always the
    same on one kind of device, whoever asks for it.

    Parameters
    ----------
    start, step : int
        The stream is the batches `start`, `start + step`, `start + 2 * step`, ...
    """

    def __init__(
        self,
        foregrounds: list[Foreground],
        backgrounds: list[Tensor],
        synthesis: Synthesis,
        batch_size: int,
        seed: int,
        start: int = 0,
        step: int = 1,
    ) -> None:
        self.foregrounds, self.backgrounds = foregrounds, backgrounds
        self.synthesis, self.batch_size, self.seed = synthesis, batch_size, seed
        self.start, self.step = start, step
        self.soft = [soft_pixels(f.alpha) for f in foregrounds]
        self.shares = torch.tensor([len(soft) for soft in self.soft]) ** synthesis.softness

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return map(self.batch, itertools.count(self.start, self.step))

    def batch(self, index: int) -> dict[str, Tensor]:
        """Return batch number `index`."""
        # Of a seed's bits PyTorch's generator on the CPU takes no more than the lowest 32.
        seed = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        samples = [self.sample(generator) for _ in range(self.batch_size)]
        foreground, background, alpha = (torch.stack(part) for part in zip(*samples, strict=True))
        low, high = self.synthesis.trimap_kernel
        inwards, outwards = torch.randint(low, high, (2, len(alpha)), generator=generator).tolist()
        trimap = make_trimaps(alpha, inwards, outwards)
        composite = torch.lerp(background, foreground, alpha)
        image = torch.empty_like(composite).normal_(
            std=uniform(0, self.synthesis.noise, generator),
            generator=torch.Generator(alpha.device).manual_seed(seed),
        )
        image.add_(composite).clamp_(0, 1)
        return {
            "image": normalise(self.compress(image, generator)),
            "trimap": trimap,
            "unknown": (trimap == trimap.new_tensor(UNKNOWN)).float(),
            "alpha": alpha,
            "foreground": foreground,
            "background": background,
            "composite": composite,
        }

    def compress(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pass some of N×3×S×S in 0..1 through JPEG, each at a quality of its own, in place."""
        low, high = self.synthesis.jpeg_quality
        quality = torch.randint(low, high + 1, (len(images),), generator=generator)
        chosen = torch.rand(len(images), generator=generator) < self.synthesis.jpeg
        if chosen.any():
            number = chosen.nonzero()[:, 0].to(images.device)
            images[number] = jpeg(images[number], quality[chosen].to(images.device))
        return images

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return one foreground, background (3×S×S) and alpha (1×S×S), in 0..1."""
        s = self.synthesis
        colour, alpha = self.foreground(generator)
        if uniform(0, 1, generator) < s.two_foregrounds:
            behind_colour, behind = self.foreground(generator)
            union = alpha + (1 - alpha) * behind
            colour = torch.where(
                union > 0,
                (colour * alpha + behind_colour * (1 - alpha) * behind) / union.clamp(min=1e-6),
                colour,
            )
            alpha = union
        if uniform(0, 1, generator) < s.holes:
            alpha = alpha * (1 - self.foreground(generator)[1])
        # Interpolation leaves values a rounding error away from zero and one.
        alpha = (alpha * 255).round() / 255
        return jitter(colour, s, generator), jitter(self.background(generator), s, generator), alpha

    def pick(self, generator: torch.Generator) -> int:
        """Return a foreground's number."""
        return torch.multinomial(self.shares, 1, generator=generator).item()

    def foreground(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return colours 3×S×S and alpha 1×S×S, in 0..1, around a soft pixel of some foreground."""
        s = self.synthesis
        pick = self.pick(generator)
        source, soft = self.foregrounds[pick], self.soft[pick]
        pixel = soft[torch.randint(len(soft), (), generator=generator)].item()
        y, x = divmod(pixel, source.alpha.shape[-1])
        zoom = math.exp(uniform(*map(math.log, s.foreground_zoom), generator))
        shift = 0.3 * s.crop * zoom
        centre = (y + uniform(-shift, shift, generator), x + uniform(-shift, shift, generator))
        degrees = uniform(-s.rotation_degrees, s.rotation_degrees, generator)
        flip = uniform(0, 1, generator) < 0.5
        where = (centre, zoom, degrees, flip, s.crop)
        colour = sample_window(source.colour, *where, padding="border")
        return colour, sample_window(source.alpha, *where, padding="zeros")

    def background(self, generator: torch.Generator) -> Tensor:
        """Return a piece of some background, 3×S×S in 0..1."""
        s = self.synthesis
        source = self.backgrounds[
            torch.randint(len(self.backgrounds), (), generator=generator).item()
        ]
        height, width = source.shape[-2:]
        low, high = s.background_zoom
        zoom = math.exp(uniform(math.log(low), math.log(high), generator))
        zoom = min(zoom, height / s.crop, width / s.crop)
        margin = zoom * s.crop / 2
        centre = (
            uniform(margin, height - margin, generator),
            uniform(margin, width - margin, generator),
        )
        flip = uniform(0, 1, generator) < 0.5
        return sample_window(source, centre, zoom, 0.0, flip, s.crop, padding="reflection")
