"""Reading what the trainer learns from and is judged by: foregrounds, backgrounds, photographs.

Pictures stay uint8 in memory; `train.synthesis` makes training samples of them. Where they lie is
found by `train.layouts`.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.utils.data import Dataset

from matting.images import read_cutout, read_gray, read_image, read_trimap
from train.layouts import (
    DataError,
    Files,
    Pair,
    Photograph,
    evenly,
    find_files,
    find_photographs,
    read_photograph,
    required,
)

BACKGROUNDS = 5000
"""So many are held in memory unless asked otherwise: 4.6 GB at COCO's 640 x 480."""
PHOTOGRAPHS = "image/, trimap/ and alpha/"


def as_tensor(pixels: np.ndarray) -> Tensor:
    """Turn H×W or H×W×C into C×H×W."""
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class Foreground:
    """A subject: `colour` 3×H×W and `alpha` 1×H×W, uint8. Colour is straight, not premultiplied."""

    colour: Tensor
    alpha: Tensor

    def to(self, device: torch.device) -> "Foreground":
        return Foreground(self.colour.to(device), self.alpha.to(device))


def read_pair(files: Pair) -> Foreground:
    """Read a foreground's colours and its alpha from a file each."""
    colour, alpha = as_tensor(read_image(files[0])), as_tensor(read_gray(files[1]))
    if colour.shape[1:] != alpha.shape[1:]:
        raise DataError(f"{files[1]}: its size is not that of {files[0]}")
    return Foreground(colour, alpha)


def read_foregrounds(files: Files) -> list[Foreground]:
    """Read all cut-outs and foreground-alpha pairs that have soft pixels to learn from."""
    foregrounds = [Foreground(*map(as_tensor, read_cutout(path))) for path in files.cutouts]
    foregrounds += [read_pair(pair) for pair in files.pairs]
    usable = [f for f in foregrounds if ((f.alpha > 0) & (f.alpha < 255)).any()]
    if not usable:
        raise DataError(f"none of {len(foregrounds)} foregrounds has a soft edge to learn from")
    return usable


def stated_size(path: Path) -> tuple[int, int] | None:
    """Return a picture's width and height as its header states; None if it does not tell."""
    with suppress(OSError, SyntaxError, Image.DecompressionBombError), Image.open(path) as picture:
        # Where EXIF comes behind a PNG's pixels, `getexif` alone would decode them.
        exif = picture.getexif() if "exif" in picture.info else {}
        return picture.size if exif.get(ExifTags.Base.Orientation, 1) == 1 else None
    return None


class Photographs(Dataset):
    """Whole photographs: name, image H×W×3, trimap H×W and true alpha H×W, uint8 arrays."""

    def __init__(self, files: list[Photograph]) -> None:
        self.files = files

    @classmethod
    def find(cls, data: Path) -> "Photographs":
        """Find those of a data set, or of a folder with image/, trimap/ and alpha/."""
        return cls(required(find_photographs(data), data, PHOTOGRAPHS))

    def check(self) -> None:
        """Raise the errors of reading them: a missing file, a coloured trimap, another size.

        Where headers show that sizes are equal only the trimaps are read.
        """
        for index, files in enumerate(self.files):
            read_trimap(files[1])  # no header says if it is in colour
            sizes = {stated_size(path) for path in files}
            if len(sizes) > 1 or None in sizes:
                self[index]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
        files = self.files[index]
        return files[0].stem, *read_photograph(files)


@dataclass(frozen=True)
class TrainingData:
    """All that a run learns from and is judged by; pictures in memory, photographs on disk."""

    foregrounds: list[Foreground]
    backgrounds: list[Tensor]
    photographs: Dataset

    def counts(self) -> dict[str, int]:
        """Return how many of each there are."""
        return {
            "foregrounds": len(self.foregrounds),
            "backgrounds": len(self.backgrounds),
            "validation photographs": len(self.photographs),
        }

    def __deepcopy__(self, _: dict) -> "TrainingData":
        """Return itself: whoever copies a module that holds it means the weights."""
        return self

    @classmethod
    def read(
        cls, data: Path, photographs: int | None = None, backgrounds: int | None = BACKGROUNDS
    ) -> "TrainingData":
        """Read a data set; the numbers limit how many are used, evenly chosen; None is all.

        Raises `DataError` where something is missing or does not fit, and `ImageError` for a
        picture that cannot be read.
        """
        files = find_files(data)
        required(files.cutouts + files.pairs, data, "train/cutouts/ and train/pairs/")
        chosen = required(evenly(files.backgrounds, backgrounds), data, "train/backgrounds/")
        judges = Photographs(required(evenly(files.photographs, photographs), data, PHOTOGRAPHS))
        judges.check()  # a run opens them at its first validation, which may be hours away
        return cls(
            read_foregrounds(files), [as_tensor(read_image(path)) for path in chosen], judges
        )
