"""Would the network's numbers fit into the type that it is exported in?"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from export.graph import PRECISIONS
from export.hooks import named_convolutions, watching
from train.network import DeepImageMatting


@contextmanager
def largest_magnitudes(network: DeepImageMatting) -> Iterator[dict[str, float]]:
    """Note, by layer, the largest magnitude of its weights and of what it makes of any picture.

    Computed in FP32. NaN where anything is NaN.
    """
    layers = named_convolutions(network)
    largest = {
        name: magnitude(torch.cat([p.detach().flatten() for p in layer.parameters()]))
        for name, layer in layers.items()
    }

    def note(name: str, _: torch.Tensor, output: torch.Tensor) -> None:
        # Unlike `max`, this keeps NaN.
        largest[name] = float(np.maximum(largest[name], magnitude(output)))

    with watching(layers, note):
        yield largest


def magnitude(values: torch.Tensor) -> float:
    """Return the largest |value|, NaN if any is NaN."""
    return values.abs().max().item()


def overflows(largest: dict[str, float], precision: str) -> list[str]:
    """Name the layers with numbers that the precision cannot hold, or that are none at all."""
    limit = torch.finfo(PRECISIONS[precision]).max
    return [
        f"{name} reaches {value:.3g}, {precision} ends at {limit:.5g}"
        for name, value in largest.items()
        if not value <= limit
    ]
