"""Fixtures shared by the tests of `train`: mmediting's reference pictures and numbers."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from matting.compositing import composite, cutout
from matting.images import read_gray, read_image, write_image
from matting.trimaps import trimap_from_alpha
from train.predict import normalise


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder of mmediting's reference outputs."""
    return Path(__file__).parents[1] / "data/oracle"


@pytest.fixture(scope="session")
def picture(oracle: Path) -> Callable[[str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Image, trimap and true alpha of a reference picture, each a batch of one, uint8."""

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        stem = oracle / "infer" / name
        image = torch.from_numpy(read_image(f"{stem}_merged.png")).permute(2, 0, 1)
        trimap, truth = (
            torch.from_numpy(read_gray(f"{stem}_{kind}.png"))[None] for kind in ("trimap", "alpha")
        )
        return image[None], trimap[None], truth[None]

    return read


@pytest.fixture(scope="session")
def batch(oracle: Path) -> dict[str, torch.Tensor]:
    """The reference batch of two samples, as `train.synthesis.Samples` makes them."""

    def read(kind: str, reader: Callable[[Path], np.ndarray]) -> torch.Tensor:
        samples = [reader(oracle / "train" / f"{number}_{kind}.png") for number in (0, 1)]
        pixels = torch.from_numpy(np.stack(samples)).float() / 255
        return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)

    composite, trimap = read("composite", read_image), read("trimap", read_gray)
    return {
        "image": normalise(composite),
        "trimap": trimap,
        "unknown": (trimap == torch.tensor(128 / 255)).float(),
        "alpha": read("alpha", read_gray),
        "foreground": read("foreground", read_image),
        "background": read("background", read_image),
        "composite": composite,
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of drawn shapes: 2 cut-outs, 1 pair, 2 backgrounds, 3 photographs."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)

    def texture(height: int, width: int) -> np.ndarray:
        return cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (width, height))

    def subject(height: int, width: int) -> np.ndarray:
        radius = random.uniform(0.2, 0.3) * height
        distance = np.hypot(*(np.indices((height, width)) - [[[height / 2]], [[width / 2]]]))
        return np.clip((radius - distance) * 24 + 128, 0, 255).astype(np.uint8)

    def write(name: str, pixels: np.ndarray) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, pixels)

    for name in ("disc", "ball"):
        write(f"train/cutouts/{name}.png", cutout(texture(90, 120), subject(90, 120)))
    write("train/pairs/foreground/moon.jpg", texture(100, 80))
    write("train/pairs/alpha/moon.png", subject(100, 80))
    for name in ("wall", "sky"):
        write(f"train/backgrounds/{name}.png", texture(150, 140))
    for name, size in {"one": (64, 96), "two": (70, 50), "three": (40, 100)}.items():
        alpha = subject(*size)
        write(f"val/image/{name}.jpg", composite(alpha, texture(*size), texture(*size)))
        write(f"val/trimap/{name}.png", trimap_from_alpha(alpha, 9, 9))
        write(f"val/alpha/{name}.png", alpha)
    return folder
