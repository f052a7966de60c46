"""Would the network's activations fit into FP16?"""

from collections.abc import Iterable

import torch
from torch import nn

from export.parity import Picture, matte_with
from train.network import DeepImageMatting

FP16_LARGEST = 65504.0


def largest_activations(network: DeepImageMatting, pictures: Iterable[Picture]) -> dict[str, float]:
    """Return, by layer, the largest |activation| that any picture causes in FP32."""
    largest: dict[str, float] = {}

    def watch(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, __: tuple, output: torch.Tensor) -> None:
            largest[name] = max(largest.get(name, 0.0), output.abs().max().item())

        return layer.register_forward_hook(note)

    layers = ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    handles = [watch(name, layer) for name, layer in layers]
    try:
        matte = matte_with(network)
        for picture in pictures:
            matte(picture.image[None], picture.trimap[None, ..., None])
    finally:
        for handle in handles:
            handle.remove()
    return largest


def overflows(largest: dict[str, float]) -> list[str]:
    """Name the layers whose activations FP16 cannot hold (or that are not numbers at all)."""
    return [
        f"{name} reaches {value:.3g}, FP16 ends at {FP16_LARGEST:.0f}"
        for name, value in largest.items()
        if not value <= FP16_LARGEST
    ]
