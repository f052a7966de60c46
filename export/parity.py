"""Is an exported model the network it was made from? Judged on pictures with true alphas.

As a command, this writes the network's own alphas, with which `export.plan --pictures` compares an
engine on a machine without PyTorch.

examples:
  python -m export.parity weights.safetensors -o pictures
"""

import argparse
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.errors import ExportError
from export.references import read_arrays
from export.tolerance import TOLERANCES
from matting.files import write_whole
from matting.images import ImageError
from matting.metrics import evaluate
from matting.signals import run_until_stopped
from matting.trimaps import ternary
from train.layouts import DataError, find_photographs, read_photograph

if TYPE_CHECKING:
    from train.network import DeepImageMatting

Matting = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(image N×H×W×3, trimap N×H×W×1) → alpha N×H×W×1, all uint8: the wire contract as a function."""

PICTURES = Path(__file__).parent / "pictures"
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
        """The trimap as the metrics take it."""
        return ternary(self.trimap)


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
        """Return the mean metrics of both and the differences of alpha, for a manifest."""
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


def read_pictures(folder: Path = PICTURES) -> Iterator[Picture]:
    """Read the photographs of a data set, in any layout that `train.layouts` knows.

    Raises
    ------
    DataError
        There is none, or one lacks its trimap or alpha, or they are not of one size.
    ImageError
        One cannot be read.
    """
    photographs = find_photographs(folder)
    if not photographs:
        raise DataError(f"{folder}: no pictures; expected image/, trimap/ and alpha/")
    for files in photographs:
        yield Picture(files[0].stem, *read_photograph(files))


def with_mirror_images(pictures: list[Picture]) -> list[Picture]:
    """Return the pictures, the smallest first and after it its mirror image and it upside down.

    They make a batch of three pictures, none of which may have another's alpha.
    """
    smallest, *others = sorted(pictures, key=lambda picture: picture.trimap.size)
    turns = {"": np.s_[:], ", mirrored": np.s_[:, ::-1], ", upside down": np.s_[::-1]}
    arrays = (smallest.image, smallest.trimap, smallest.alpha)
    turned = [
        Picture(smallest.name + how, *(array[turn].copy() for array in arrays))
        for how, turn in turns.items()
    ]
    return turned + others


def matte_with(network: "DeepImageMatting", compile_mode: str | None = None) -> Matting:
    """Return the PyTorch network, the reference, on its device, as the wire contract's function.

    `compile_mode` is torch.compile's, for all between the pixels; None leaves it out.
    """
    import torch

    from train.predict import predict_alpha

    device = next(network.parameters()).device
    predict = predict_alpha
    if compile_mode:
        predict = torch.compile(predict_alpha, mode=compile_mode, dynamic=False)

    def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        inputs = (torch.from_numpy(x).to(device).permute(0, 3, 1, 2) for x in (image, trimap))
        return predict(network, *inputs).permute(0, 2, 3, 1).cpu().numpy()

    return matte


def alpha_alone(matte: Matting, picture: Picture) -> np.ndarray:
    """Return a picture's alpha, H×W uint8."""
    return matte(picture.image[None], picture.trimap[None, ..., None])[0, ..., 0]


def alphas_in_batches(matte: Matting, pictures: list[Picture], most: int) -> list[np.ndarray]:
    """Return the pictures' alphas, H×W uint8; up to `most` neighbours of one size go together."""
    alphas = []
    for _, alike in itertools.groupby(pictures, lambda picture: picture.trimap.shape):
        while batch := list(itertools.islice(alike, most)):
            images = np.stack([picture.image for picture in batch])
            trimaps = np.stack([picture.trimap for picture in batch])
            alphas += list(matte(images, trimaps[..., None])[..., 0])
    return alphas


def compare(picture: Picture, expected: np.ndarray, found: np.ndarray) -> Comparison:
    """Compare one picture's alphas, H×W uint8: the reference's and an exported model's.

    Raises
    ------
    ExportError
        The metrics do not take one of them: it contradicts the trimap, say.
    """
    try:
        metrics = [
            evaluate(alpha, picture.alpha, picture.ternary_trimap) for alpha in (expected, found)
        ]
    except ValueError as error:
        raise ExportError(f"{picture.name}: {error}") from error
    difference = np.abs(expected.astype(np.float32) - found) / 255
    return Comparison(
        picture.name,
        *metrics,
        float(difference.mean()),
        float(np.percentile(difference, 99)),
        float(difference.max()),
    )


def means(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the pictures, as mmediting reports a data set."""
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}


def judge(comparisons: list[Comparison], precision: str) -> Parity:
    """Judge the comparisons by the precision's tolerance."""
    tolerance = TOLERANCES[precision]
    parity = Parity(comparisons, complaints=[])
    summary = parity.summary()
    for name, expected in summary["reference"].items():
        found = summary["exported"][name]
        change = (found - expected) / max(expected, 1e-9)
        if not tolerance.may_improve:
            change = abs(change)
        if not change <= tolerance.metric:
            parity.complaints.append(
                f"{name} is {found:.6g}, the reference's is {expected:.6g}: "
                f"{change:.3%} apart, at most {tolerance.metric:.1%} is allowed"
            )
    mean = summary["mean_difference"]
    if not mean <= tolerance.mean_alpha:
        parity.complaints.append(
            f"alpha differs by {mean:.2g} on average, at most {tolerance.mean_alpha:g} is allowed"
        )
    return parity


def proven(comparisons: list[Comparison], precision: str) -> Parity:
    """Return the verdict that the model is the network.

    Raises
    ------
    ExportError
        It is not, within the precision's tolerance.
    """
    parity = judge(comparisons, precision)
    if parity.complaints:
        raise ExportError("not equal to the network: " + "; ".join(parity.complaints))
    return parity


def save_references(network: "DeepImageMatting", pictures: list[Picture], folder: Path) -> None:
    """Write NAME.npz for each picture: image H×W×3; trimap, true and own alpha H×W, uint8.

    These are `image`, `trimap`, `truth` and `alpha`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matte = matte_with(network)
    for picture in pictures:
        arrays = {
            "image": picture.image,
            "trimap": picture.trimap,
            "truth": picture.alpha,
            "alpha": alpha_alone(matte, picture),
        }
        content = io.BytesIO()  # into a file, on a full disk, zipfile prints a traceback of its own
        np.savez_compressed(content, **arrays)
        write_whole(folder / f"{picture.name}.npz", content.getbuffer())


def read_reference(path: Path) -> tuple[Picture, np.ndarray]:
    """Return a picture that `save_references` wrote, and the network's alpha H×W of it.

    Raises
    ------
    ExportError
        It is no such file.
    """
    image, trimap, truth, alpha = read_arrays(path, "image", "trimap", "truth", "alpha")
    return Picture(path.stem, image, trimap, truth), alpha


def add_pictures_argument(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """Add where the pictures with known alphas are, and what for."""
    parser.add_argument(
        "--data",
        type=Path,
        default=PICTURES,
        metavar="DIR",
        help=f"data set with image/, trimap/ and alpha/{purpose} (the project's own small one)",
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="checkpoint: ours or mmediting's .pth")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/pictures"),
        metavar="DIR",
        help="folder for the files, one per picture (%(default)s)",
    )
    add_pictures_argument(parser)
    options = parser.parse_args(arguments)
    from train.checkpoint import CheckpointError, load_checkpoint

    try:
        pictures = list(read_pictures(options.data))
        save_references(load_checkpoint(options.weights), pictures, options.output)
    except (CheckpointError, DataError, ImageError, OSError) as error:
        print(f"export.parity: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(run_until_stopped("export.parity", main))
