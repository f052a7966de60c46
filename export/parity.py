"""Is an exported model the network it was made from? Judged on pictures with true alphas."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.tolerance import TOLERANCES
from matting.images import read_gray, read_image, read_trimap
from matting.metrics import evaluate
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
    """Read `image/`, `trimap/` and `alpha/` of a folder, paired by name without suffix."""
    for image in sorted((folder / "image").iterdir()):
        trimap, alpha = (
            next((folder / kind).glob(f"{image.stem}.*")) for kind in ("trimap", "alpha")
        )
        yield Picture(image.stem, read_image(image), read_trimap(trimap), read_gray(alpha))


def matte_with(network: DeepImageMatting) -> Matte:
    """Return the PyTorch network, the reference, as the wire contract's function."""

    def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        inputs = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (image, trimap))
        return predict_alpha(network, *inputs).permute(0, 2, 3, 1).numpy()

    return matte


def compare(picture: Picture, reference: Matte, exported: Matte) -> Comparison:
    """Matte one picture with both, the exported model as a batch of the picture and its mirror."""
    image, trimap = picture.image[None], picture.trimap[None, ..., None]
    expected = reference(image, trimap)[0, ..., 0]
    batch = [np.concatenate([x, x[:, :, ::-1]]) for x in (image, trimap)]
    found = exported(*batch)[0, ..., 0]
    difference = np.abs(expected.astype(np.float32) - found) / 255
    # The metrics know one value for unknown.
    truth_trimap = np.where(np.isin(picture.trimap, (0, 255)), picture.trimap, 128).astype(np.uint8)
    return Comparison(
        picture.name,
        evaluate(expected, picture.alpha, truth_trimap),
        evaluate(found, picture.alpha, truth_trimap),
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
