"""What half precision costs a network, layer by layer: where would FP32 pay?

The weights, inputs and outputs of one layer at a time are rounded while the rest of the network
stays FP32; then those of all layers. Sums inside a layer stay FP32, as on a GPU's tensor cores.
Rounding matters most where it moves a pooling's maximum to another pixel: the decoder then writes
elsewhere. Also shown: the largest weight or output of a layer, which must fit into FP16 (65504).
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.measure import Samples
from benchmarks.tables import Row, Section
from export.hooks import named_convolutions
from export.overflow import largest_magnitudes
from export.parity import (
    Picture,
    add_pictures_argument,
    alpha_alone,
    compare,
    judge,
    matte_with,
    read_pictures,
)
from train.checkpoint import load_checkpoint
from train.network import DeepImageMatting

QUICK = "one picture, the first layer and all together"
EXAMPLES = """examples:
  python -m benchmarks precision model_repository/dim/1/weights.safetensors
  python -m benchmarks precision dim_stage3.pth --data my_pictures
"""
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    parser.add_argument("weights", type=Path, help="checkpoint: ours or mmediting's .pth")
    add_pictures_argument(parser)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: of each layer, and of all, what rounding does to maxima and metrics.

    "largest" is each layer's largest magnitude, of its weights and of what it makes.
    """
    pictures = list(read_pictures(options.data))[: 1 if options.quick else None]
    network = load_checkpoint(options.weights)
    layers = named_convolutions(network)
    alone = [(name, [layer]) for name, layer in layers.items()][: 1 if options.quick else None]
    choices = [*alone, (ALL, list(layers.values()))]
    with largest_magnitudes(network) as largest:
        exact = [alpha_and_maxima(network, picture) for picture in pictures]
    rows = [
        {"layer": name, "precision": precision} | cost(network, chosen, precision, pictures, exact)
        for name, chosen in tqdm(choices, unit="layer", disable=None)
        for precision in TYPES
    ]
    return {
        "pictures": [picture.name for picture in pictures],
        "largest": largest | {ALL: max(largest.values())},
        "rows": rows,
    }


def cost(
    network: DeepImageMatting,
    layers: list[nn.Conv2d],
    precision: str,
    pictures: list[Picture],
    exact: list[tuple],
) -> dict[str, object]:
    """Return what rounding some layers does.

    Returns
    -------
    dict
        "moved": share of the five poolings' maxima that are elsewhere; "mean_difference" of alpha
        in 0..1; "changes": relative, of the four metrics' means; "complaints" by the tolerance.
    """
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(rounded(layer, TYPES[precision]))
        found = [alpha_and_maxima(network, picture) for picture in pictures]
    comparisons = [
        compare(picture, expected, alpha)
        for picture, (expected, _), (alpha, _) in zip(pictures, exact, found, strict=True)
    ]
    pairs = [
        pair for (_, a), (_, b) in zip(exact, found, strict=True) for pair in zip(a, b, strict=True)
    ]
    parity = judge(comparisons, precision)
    summary = parity.summary()
    return {
        "moved": sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs),
        "mean_difference": summary["mean_difference"],
        "changes": {
            name: summary["exported"][name] / value - 1 if value else 0.0
            for name, value in summary["reference"].items()
        },
        "complaints": parity.complaints,
    }


@contextmanager
def rounded(layer: nn.Conv2d, dtype: torch.dtype) -> Iterator[None]:
    """Let a layer compute as with inputs, weights and outputs of a type, and sums in FP32."""
    weights = {name: parameter.data for name, parameter in layer.named_parameters()}
    before = layer.register_forward_pre_hook(
        lambda _, inputs: tuple(x.to(dtype).float() for x in inputs)
    )
    after = layer.register_forward_hook(lambda _, __, output: output.to(dtype).float())
    try:
        for parameter in layer.parameters():
            parameter.data = parameter.data.to(dtype).float()
        yield
    finally:
        before.remove()
        after.remove()
        for name, parameter in layer.named_parameters():
            parameter.data = weights[name]


def alpha_and_maxima(network: DeepImageMatting, picture: Picture) -> tuple:
    """Return a picture's alpha, H×W uint8, and where the poolings' maxima are, five tensors."""
    maxima: list[Tensor] = []
    pool = network.backbone.encoder.pool
    handle = pool.register_forward_hook(lambda _, __, output: maxima.append(output[1]))
    try:
        return alpha_alone(matte_with(network), picture), maxima
    finally:
        handle.remove()


def render(record: dict) -> list[Section]:
    """Return a record's table, a layer a row, and what it says."""
    rows: dict[str, Row] = {}
    for found in record["rows"]:
        layer = found["layer"]
        row = rows.setdefault(
            layer, {"rounded": layer, "largest": f"{record['largest'][layer]:.1f}"}
        )
        name = found["precision"].upper()
        row[f"maxima moved, {name}"] = f"{found['moved']:.4%}"
        row[f"mean Δα, {name}"] = f"{found['mean_difference']:.1e}"
        metric, change = max(found["changes"].items(), key=lambda item: abs(item[1]))
        row[f"largest change, {name}"] = f"{metric} {change:+.3%}"
    outside = [found for found in record["rows"] if found["complaints"]]
    text = [
        f"{found['layer']}, {found['precision']}: {'; '.join(found['complaints'])}"
        for found in outside
    ]
    return [list(rows.values()), text or "All within the tolerance: FP32 would pay nowhere."]


def samples(record: dict) -> Samples:
    """Return nothing: quality takes no time."""
    return {}
