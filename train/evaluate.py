"""Measure weights on whole photographs with known alpha: SAD, MSE, GRAD and CONN.

Images are padded and alphas rounded as mmediting does; lower is better in every column.

examples:
  python -m train.evaluate weights.safetensors --data DATA
  python -m train.evaluate dim_stage3.pth --data DATA/val_large -o report
  python -m train.evaluate weights.safetensors --data DATA --knn --peers -o report
  python -m train.evaluate runs/first/stage?/best.safetensors --data DATA
"""

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from matting.files import check_folder, write_whole
from matting.images import ImageError, write_image
from matting.knn import knn_alpha
from matting.metrics import evaluate
from matting.signals import run_until_stopped
from matting.trimaps import ternary
from train.baselines import blend_by_distance, closed_form, knn
from train.checkpoint import CheckpointError, load_checkpoint
from train.dataset import Photographs
from train.layouts import TEST_PICTURES, DataError, is_composition_1k_test
from train.network import DeepImageMatting
from train.predict import predict_alpha
from train.sheet import contact_sheet, matte_row

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""H×W×3 uint8 image and H×W uint8 trimap to H×W uint8 alpha; ValueError where it cannot."""

METRICS = ("SAD", "MSE", "GRAD", "CONN")
FORMATS = ("", "", ".2f", ".4f", ".2f", ".2f")
"""Of the table's columns."""
BASELINE = "distance blend"
PUBLISHED = {
    "mmediting stage 1": (53.8, 0.017, 32.7, 54.5),
    "mmediting stage 2": (52.3, 0.016, 29.4, 52.4),
    "mmediting stage 3": (50.6, 0.015, 29.0, 50.7),
}
"""What mmediting reports for its weights on Composition-1k."""
WORST = 10
"""So many rows has the contact sheet."""


def of_network(network: DeepImageMatting, device: str) -> Method:
    """Return the network's prediction as a method on arrays."""
    # TensorFloat-32, on by default, moves pooling maxima: 0.02 of alpha with random weights.
    torch.backends.cudnn.allow_tf32 = False
    network = network.to(device, memory_format=torch.channels_last).eval()

    def predict(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        marks = torch.from_numpy(trimap)[None, None].to(device)
        return predict_alpha(network, pixels, marks)[0, 0].cpu().numpy()

    return predict


def methods_of(weights: list[Path], device: str) -> dict[str, Method]:
    """Return the networks of checkpoints: `network` if it is one, else each by its path."""
    networks = [of_network(load_checkpoint(path), device) for path in weights]
    names = ["network"] if len(weights) == 1 else map(str, weights)
    return dict(zip(names, networks, strict=True))


def measure(
    methods: dict[str, Method], photographs: Photographs, refined: Collection[str] = ()
) -> tuple[list[dict], np.ndarray]:
    """Run methods on every photograph; those named in `refined` also with `matting.knn` after it.

    Returns
    -------
    list of dict
        `method`, `name` and the four metrics of every prediction. Where a method cannot, none.
    H×W×3 uint8
        Contact sheet of the photographs where the first method's SAD is highest.
    """
    results, rows = [], {}
    progress = tqdm(photographs, unit="image", disable=None)
    for name, image, trimap, truth in progress:
        known = ternary(trimap)
        for method, predict in methods.items():
            try:
                alpha = predict(image, trimap)
            except ValueError as error:
                progress.write(f"{name}: {method} left out: {error}", file=sys.stderr)
                continue
            figures = evaluate(alpha, truth, known)
            results.append({"method": method, "name": name, **figures})
            if method in refined:
                better = evaluate(knn_alpha(image, trimap, alpha), truth, known)
                results.append({"method": f"{method}, --knn", "name": name, **better})
            if method == next(iter(methods)):
                progress.set_postfix(SAD=f"{mean(results, method)['SAD']:.2f}")
                label = f"{name}  SAD {figures['SAD']:.2f}"
                rows[figures["SAD"], name] = matte_row(image, trimap, alpha, truth, label)
                rows = dict(sorted(rows.items(), reverse=True)[:WORST])
    return results, contact_sheet(rows.values())


def mean(results: list[dict], method: str) -> dict[str, float]:
    """Return the mean of each metric over a method's images."""
    own = [result for result in results if result["method"] == method]
    return {metric: float(np.mean([result[metric] for result in own])) for metric in METRICS}


def table(results: list[dict], published: bool) -> str:
    """Return the means of all methods as a Markdown table, with `PUBLISHED` if they compare."""
    images = Counter(result["method"] for result in results)
    rows = [(method, count, *mean(results, method).values()) for method, count in images.items()]
    if published:
        rows += [(method, TEST_PICTURES, *figures) for method, figures in PUBLISHED.items()]
    return tabulate(rows, ("method", "images", *METRICS), "pipe", floatfmt=FORMATS)


def write_csv(results: list[dict], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["method", "name", *METRICS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_whole(path, text.getvalue().encode())


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "weights",
        type=Path,
        nargs="+",
        help=".safetensors or mmediting's .pth; several are compared",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with image/, trimap/ and alpha/, with val/ that has them, or with mmediting's "
        "test_list.json",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write per_image.csv and worst.png there"
    )
    parser.add_argument(
        "--peers", action="store_true", help="also KNN and closed-form matting (minutes per image)"
    )
    parser.add_argument(
        "--knn", action="store_true", help="also each network with the client's --knn"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="PyTorch device to use (default here: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {options.device}: {str(error).splitlines()[0]}")
    return options


def run(options: argparse.Namespace) -> None:
    """Measure, print the table, and write the files that were asked for."""
    methods = methods_of(options.weights, options.device)
    refined = list(methods) if options.knn else []
    methods |= {BASELINE: blend_by_distance}
    photographs = Photographs.find(options.data)
    published = is_composition_1k_test(options.data)
    if options.peers:
        methods |= {"KNN": knn, "closed form": closed_form}
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        check_folder(options.output)
    results, worst = measure(methods, photographs, refined)
    print(table(results, published))
    if options.output:
        write_csv(results, options.output / "per_image.csv")
        write_image(options.output / "worst.png", worst)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        run(options)
    except (CheckpointError, DataError, ImageError, OSError) as error:
        print(f"train.evaluate: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"train.evaluate: {error}; pip install pymatting", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_until_stopped("train.evaluate", main))
