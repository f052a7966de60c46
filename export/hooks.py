"""Look at what goes through a network's layers while it computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

Note = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Is told a layer's name, its input and its output."""


def named_convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return a network's convolutions by name, in their order."""
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}


@contextmanager
def watching(layers: dict[str, nn.Module], note: Note) -> Iterator[None]:
    """Call `note` whenever one of the layers, each of one input, has computed."""

    def hook(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_hook(lambda _, given, made: note(name, given[0], made))

    handles = [hook(name, layer) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
