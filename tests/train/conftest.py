"""Fixtures shared by the tests of `train`: mmediting's reference pictures and numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from matting.images import read_gray, read_image
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
