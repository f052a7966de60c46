"""Reading what the trainer learns from and is judged by: foregrounds, backgrounds, photographs.

Pictures stay uint8 in memory; `train.synthesis` makes training samples of them. A data folder:

    train/cutouts/*.png                      RGBA
    train/pairs/foreground/*, alpha/*        RGB and grey, paired by name without suffix
    train/backgrounds/*                      RGB
    val/image/*, trimap/*, alpha/*           paired by name without suffix
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from matting.images import WRITABLE_SUFFIXES, read_cutout, read_gray, read_image

PICTURE_SUFFIXES = set(WRITABLE_SUFFIXES)


class DataError(ValueError):
    """A data folder is not what it should be; the message says how to fix it."""


def as_tensor(pixels: np.ndarray) -> Tensor:
    """Turn H×W or H×W×C into C×H×W."""
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy())


def pictures(folder: Path) -> dict[str, Path]:
    """Return the folder's pictures by name without suffix, sorted; empty if there is no folder."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    return {path.stem: path for path in found}


def paired(*folders: Path) -> list[tuple[Path, ...]]:
    """Return files by names that stand in all folders; others are errors."""
    listings = [pictures(folder) for folder in folders]
    names = sorted(set().union(*listings))
    for folder, listing in zip(folders, listings, strict=True):
        missing = [name for name in names if name not in listing]
        if missing:
            raise DataError(f"{folder}: no picture named {', '.join(missing[:5])}")
    return [tuple(listing[name] for listing in listings) for name in names]


@dataclass(frozen=True)
class Foreground:
    """A subject: `colour` 3×H×W and `alpha` 1×H×W, uint8. Colour is straight, not premultiplied."""

    colour: Tensor
    alpha: Tensor

    def to(self, device: torch.device) -> "Foreground":
        return Foreground(self.colour.to(device), self.alpha.to(device))


def read_foregrounds(data: Path) -> list[Foreground]:
    """Read all cut-outs and foreground-alpha pairs of a data folder's `train`."""
    foregrounds = []
    for path in pictures(data / "train/cutouts").values():
        foregrounds.append(Foreground(*map(as_tensor, read_cutout(path))))
    for colour, alpha in paired(data / "train/pairs/foreground", data / "train/pairs/alpha"):
        foreground = Foreground(as_tensor(read_image(colour)), as_tensor(read_gray(alpha)))
        if foreground.colour.shape[1:] != foreground.alpha.shape[1:]:
            raise DataError(f"{alpha}: its size is not that of {colour}")
        foregrounds.append(foreground)
    usable = [f for f in foregrounds if ((f.alpha > 0) & (f.alpha < 255)).any()]
    if not usable:
        raise DataError(f"{data}/train: no cut-out or foreground-alpha pair with a soft edge")
    return usable


def read_backgrounds(data: Path) -> list[Tensor]:
    """Read all backgrounds of a data folder's `train`, 3×H×W uint8 each."""
    backgrounds = [
        as_tensor(read_image(path)) for path in pictures(data / "train/backgrounds").values()
    ]
    if not backgrounds:
        raise DataError(f"{data}/train/backgrounds: no pictures")
    return backgrounds


def photographs_folder(data: Path) -> Path:
    """Return the folder that holds image/, trimap/ and alpha/: `data` itself or its val/."""
    return data if (data / "image").is_dir() else data / "val"


class Photographs(Dataset):
    """Whole photographs: name, image H×W×3, trimap H×W and true alpha H×W, uint8 arrays."""

    def __init__(self, folder: Path) -> None:
        self.files = paired(folder / "image", folder / "trimap", folder / "alpha")
        if not self.files:
            raise DataError(f"{folder}: no pictures in image/, trimap/ and alpha/")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
        image_path, trimap_path, alpha_path = self.files[index]
        image, trimap, alpha = read_image(image_path), read_gray(trimap_path), read_gray(alpha_path)
        for path, pixels in ((trimap_path, trimap), (alpha_path, alpha)):
            if pixels.shape != image.shape[:2]:
                raise DataError(
                    f"{path}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
                    f"{image.shape[1]} x {image.shape[0]}"
                )
        return image_path.stem, image, trimap, alpha


@dataclass(frozen=True)
class TrainingData:
    """All that a run learns from and is judged by; pictures in memory, photographs on disk."""

    foregrounds: list[Foreground]
    backgrounds: list[Tensor]
    photographs: Dataset

    @classmethod
    def read(cls, data: Path, photographs: int | None = None) -> "TrainingData":
        """Read a data folder; `photographs` limits how many, evenly chosen, judge a run."""
        chosen = Photographs(data / "val")
        if photographs:
            count = min(photographs, len(chosen))
            chosen = Subset(chosen, [i * len(chosen) // count for i in range(count)])
        return cls(read_foregrounds(data), read_backgrounds(data), chosen)
