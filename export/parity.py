"""Is an exported model the network it was made from? Judged on pictures with true alphas.

As a command it writes what the network answers, for `export.plan` on machines without PyTorch.

examples:
  python -m export.parity weights.safetensors -o pictures
"""

import argparse
import glob
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.tolerance import TOLERANCES
from matting.images import ImageError, read_gray, read_image, read_trimap
from matting.metrics import evaluate
from matting.trimaps import UNKNOWN, is_unknown
from train.checkpoint import CheckpointError, load_checkpoint
from train.network import DeepImageMatting
from train.predict import predict_alpha

Matte = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(image N×H×W×3, trimap N×H×W×1) → alpha N×H×W×1, all uint8: the wire contract as a function."""

PAIRS = Path(__file__).parent / "pairs"
"""Small composites with true alphas that come with the project; sources in its README."""


@dataclass(frozen=True)
class Picture:
    """A photograph with what is known of it: image H×W×3, trimap and true alpha H×W, uint8."""

    name: str
    image: np.ndarray
    trimap: np.ndarray
    alpha: np.ndarray

    @property
    def ternary_trimap(self) -> np.ndarray:
        """The trimap with 128 for every unknown value: the metrics know no other."""
        return np.where(is_unknown(self.trimap), np.uint8(UNKNOWN), self.trimap)


@dataclass(frozen=True)
class Comparison:
    """One picture, matted by the reference and by an exported model.

    `reference` and `exported` hold the four metrics against the true alpha; differences are of
    alpha in 0..1.
    """

    name: str
    reference: dict[str, float]
    exported: dict[str, float]
    mean_difference: float
    p99_difference: float
    largest_difference: float


@dataclass(frozen=True)
class Parity:
    """The verdict over all pictures; `complaints` is empty where the model is the network."""

    comparisons: list[Comparison]
    complaints: list[str]

    def summary(self) -> dict[str, object]:
        """Return mean metrics, their relative changes and the differences, for a manifest."""
        reference, exported = (
            means([getattr(c, side) for c in self.comparisons])
            for side in ("reference", "exported")
        )
        return {
            "pictures": len(self.comparisons),
            "reference": reference,
            "exported": exported,
            "mean_difference": float(np.mean([c.mean_difference for c in self.comparisons])),
            "largest_difference": max(c.largest_difference for c in self.comparisons),
        }


def read_pictures(folder: Path = PAIRS) -> Iterator[Picture]:
    """Read `image/`, `trimap/` and `alpha/` of a folder, paired by name without suffix.

    Raises
    ------
    ImageError
        There is no picture, or one lacks its trimap or alpha.
    """
    images = sorted((folder / "image").glob("*.*"))
    if not images:
        raise ImageError(f"{folder / 'image'}: no pictures; expected image/, trimap/ and alpha/")
    for image in images:
        files = [image]
        for kind in ("trimap", "alpha"):
            found = sorted((folder / kind).glob(f"{glob.escape(image.stem)}.*"))
            if len(found) != 1:
                raise ImageError(
                    f"{folder / kind / image.stem}.*: {len(found)} files; expected one for {image}"
                )
            files += found
        yield Picture(image.stem, read_image(image), read_trimap(files[1]), read_gray(files[2]))


def matte_with(network: DeepImageMatting) -> Matte:
    """Return the PyTorch network, the reference, as the wire contract's function."""

    def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        inputs = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (image, trimap))
        return predict_alpha(network, *inputs).permute(0, 2, 3, 1).numpy()

    return matte


def alpha_alone(matte: Matte, picture: Picture) -> np.ndarray:
    """Return a picture's alpha, H×W uint8."""
    return matte(picture.image[None], picture.trimap[None, ..., None])[0, ..., 0]


def alpha_in_company(matte: Matte, picture: Picture) -> np.ndarray:
    """Return a picture's alpha, H×W uint8, out of a batch of the picture and its mirror image."""
    image, trimap = (np.stack([x, x[:, ::-1]]) for x in (picture.image, picture.trimap))
    return matte(image, trimap[..., None])[0, ..., 0]


def compare(picture: Picture, expected: np.ndarray, found: np.ndarray) -> Comparison:
    """Compare one picture's alphas, H×W uint8: the reference's and an exported model's."""
    difference = np.abs(expected.astype(np.float32) - found) / 255
    return Comparison(
        picture.name,
        evaluate(expected, picture.alpha, picture.ternary_trimap),
        evaluate(found, picture.alpha, picture.ternary_trimap),
        float(difference.mean()),
        float(np.percentile(difference, 99)),
        float(difference.max()),
    )


def means(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the pictures, as mmediting reports a data set."""
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}


def judge(comparisons: list[Comparison], precision: str) -> Parity:
    """Hold the comparisons against the precision's tolerance."""
    tolerance = TOLERANCES[precision]
    complaints = []
    reference = means([c.reference for c in comparisons])
    exported = means([c.exported for c in comparisons])
    for name, expected in reference.items():
        change = abs(exported[name] - expected) / max(expected, 1e-9)
        if not change <= tolerance.metric:
            complaints.append(
                f"{name} is {exported[name]:.6g}, the reference's is {expected:.6g}: "
                f"{change:.3%} apart, at most {tolerance.metric:.1%} is allowed"
            )
    mean = float(np.mean([c.mean_difference for c in comparisons]))
    if not mean <= tolerance.mean_alpha:
        complaints.append(
            f"alpha differs by {mean:.2g} in the mean, at most {tolerance.mean_alpha:g} is allowed"
        )
    return Parity(comparisons, complaints)


def save_references(network: DeepImageMatting, pictures: list[Picture], folder: Path) -> None:
    """Write NAME.npz for each picture: image H×W×3, trimap and the network's alpha H×W, uint8."""
    folder.mkdir(parents=True, exist_ok=True)
    matte = matte_with(network)
    for picture in pictures:
        alpha = alpha_alone(matte, picture)
        arrays = {"image": picture.image, "trimap": picture.trimap, "alpha": alpha}
        np.savez_compressed(folder / f"{picture.name}.npz", **arrays)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="checkpoint: ours or mmediting's .pth")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/pictures"), metavar="DIR")
    parser.add_argument("--data", type=Path, default=PAIRS, metavar="DIR", help="(%(default)s)")
    options = parser.parse_args(arguments)
    try:
        pictures = list(read_pictures(options.data))
        save_references(load_checkpoint(options.weights), pictures, options.output)
    except (CheckpointError, ImageError, OSError) as error:
        print(f"export.parity: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
