"""Training as mmediting 0.16.1 does it, to compare with: its transforms and its loop.

Written after its behaviour with the same calls of OpenCV and NumPy; tested against its own samples.
Each sample reads four whole pictures, composed beforehand (`write_composites`), as its loader does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from train.compose import compose, cover, read_layers, read_picture
from train.layouts import Composite
from train.losses import matting_losses
from train.network import IMAGE_MEAN, IMAGE_STD, DeepImageMatting
from train.synthesis import UNKNOWN

SIZE = 320
CROPS = (320, 480, 640)
KERNELS = tuple(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)) for k in range(1, 30))
MEAN, STD = (np.float32([values]).astype(np.float64) for values in (IMAGE_MEAN, IMAGE_STD))
LEARNING_RATE = 1e-5
STAGE_1 = {"alpha": 0.5, "composition": 0.5}

Layers = dict[str, np.ndarray]
"""`alpha` H×W and `merged`, `ori_merged`, `fg`, `bg` H×W×3 BGR, uint8."""


class Files(NamedTuple):
    """What mmediting's list names for one sample."""

    alpha: Path
    fg: Path
    bg: Path
    merged: Path


class Random(Protocol):
    """`numpy.random` or a `RandomState`."""

    def randint(self, low: int, high: int | None = None) -> int: ...
    def random(self) -> float: ...


def write_composites(composites: list[Composite], folder: Path) -> list[Files]:
    """Compose as mmediting's script does before any training, and keep the cropped backgrounds.

    It knows no cut-outs: alpha and colours of one become a file each.
    """

    def write(name: str, pixels: np.ndarray) -> Path:
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., ::-1])
        return path

    files = []
    for composite in composites:
        merged, alpha = compose(composite)
        height, width = alpha.shape
        bg = np.asarray(cover(read_picture(composite.background, "RGB"), width, height))
        layers = composite.alpha, composite.colour
        if composite.alpha == composite.colour:
            fg = np.asarray(read_layers(composite)[0])
            layers = write(f"{composite.name}_alpha", alpha), write(f"{composite.name}_fg", fg)
        composed = write(f"{composite.name}_bg", bg), write(f"{composite.name}_merged", merged)
        files.append(Files(*layers, *composed))
    return files


def load(files: Files) -> Layers:
    """Read the four pictures of a sample (LoadImageFromFile)."""
    flags = (cv2.IMREAD_GRAYSCALE, *[cv2.IMREAD_COLOR] * 3)
    layers = {
        name: cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flag)
        for name, path, flag in zip(Files._fields, files, flags, strict=True)
    }
    return layers | {"ori_merged": layers["merged"].copy()}


def crop_around_unknown(layers: Layers, random: Random) -> Layers:
    """Cut a square around a random pixel of the soft edge (CropAroundUnknown)."""
    size = CROPS[random.randint(len(CROPS))]
    height, width = layers["alpha"].shape
    ratio = max(size / height, size / width)
    if ratio > 1:
        height, width = max(int(height * ratio), size), max(int(width * ratio), size)
        layers = resize(layers, width, height)
    unknown = (layers["alpha"] > 0) & (layers["alpha"] < 255)
    half = size // 2
    inner = np.zeros_like(unknown)
    inner[half : height - half, half : width - half] = True
    candidates = next((c for c in (unknown & inner, unknown) if c.any()), None)
    ys, xs = ([half], [half]) if candidates is None else np.where(candidates)
    pick = random.randint(len(ys))
    top = int(np.clip(ys[pick] - half, 0, height - size))
    left = int(np.clip(xs[pick] - half, 0, width - size))
    return {name: p[top : top + size, left : left + size] for name, p in layers.items()}


def resize(layers: Layers, width: int, height: int) -> Layers:
    return {
        name: cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        for name, pixels in layers.items()
    }


def generate_trimap(alpha: np.ndarray, random: Random) -> np.ndarray:
    """Erode and dilate by ellipses of random size, H×W float32 (GenerateTrimap)."""
    inwards, outwards = random.randint(len(KERNELS)), random.randint(len(KERNELS))
    iterations = random.randint(1, 2), random.randint(1, 2)
    eroded = cv2.erode(alpha, KERNELS[inwards], iterations=iterations[0])
    dilated = cv2.dilate(alpha, KERNELS[outwards], iterations=iterations[1])
    trimap = np.full(alpha.shape, 128, np.float32)
    trimap[eroded >= 255] = 255
    trimap[dilated <= 0] = 0
    return trimap


def transform(layers: Layers, random: Random, side: int = SIZE) -> dict[str, Tensor]:
    """Make a sample: C×side×side float32 tensors; `merged` RGB and normalised, others BGR in 0..1.

    The random numbers are drawn in mmediting's order.
    """
    layers = crop_around_unknown(layers, random)
    if random.random() < 0.5:
        layers = {name: cv2.flip(pixels, 1) for name, pixels in layers.items()}
    layers = resize(layers, side, side)
    layers["trimap"] = generate_trimap(layers["alpha"], random)
    scaled = {name: pixels.astype(np.float32) / 255.0 for name, pixels in layers.items()}
    merged = cv2.cvtColor(scaled["merged"], cv2.COLOR_BGR2RGB)
    cv2.subtract(merged, MEAN, merged)
    scaled["merged"] = cv2.multiply(merged, 1 / STD, merged)
    return {
        name: torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)))
        for name, pixels in scaled.items()
    }


class Samples(Dataset):
    """mmediting's data set: a sample of each of its composites."""

    def __init__(self, files: list[Files], side: int) -> None:
        self.files, self.side = files, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return transform(load(self.files[index]), np.random, self.side)


def loader(files: list[Files], samples: int, side: int) -> DataLoader:
    """Return mmediting's loader, batches of one; each iteration gives so many samples.

    It makes them in this process; mmediting's configs ask for four of their own.
    """
    data = Samples(files, side)
    return DataLoader(data, sampler=RandomSampler(data, replacement=True, num_samples=samples))


class Training:
    """mmediting's loop of stage 1: FP32, a batch of one, Adam at a fixed rate."""

    def __init__(self, network: DeepImageMatting) -> None:
        self.network = network.train()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def steps(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Learn from batches, one after the other."""
        for batch in batches:
            alpha, refined = self.network(batch["merged"], batch["trimap"])
            unknown = (batch["trimap"] == batch["trimap"].new_tensor(UNKNOWN)).float()
            truth = {
                "alpha": batch["alpha"],
                "unknown": unknown,
                "foreground": batch["fg"],
                "background": batch["bg"],
                "composite": batch["ori_merged"],
            }
            loss = sum(matting_losses(alpha, refined, truth, STAGE_1).values())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
