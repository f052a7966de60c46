"""What this machine could do at best, products and memory, and what a network asks of both."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import in_turns, stopwatch
from train.network import STRIDE, DeepImageMatting

DTYPES = {
    "fp32": torch.float32,
    "winograd": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
BYTES = {"fp32": 4, "winograd": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Of a value that is computed in a precision."""
COPIED = {"cpu": 2**28, "cuda": 2**31}
"""Bytes, more than any cache holds."""


def matrix_rate(precision: str = "fp32", device: str = "cpu") -> float:
    """Return the FLOP/s of the fastest of some large square matrix products, of two sizes."""
    multiply = torch._int_mm if precision == "int8" else torch.mm

    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        multiply(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    timers = []
    for side in SIDES[device]:
        a, b = (random_matrix(side, precision, device) for _ in range(2))
        timers.append(stopwatch(str(side), partial(product, a, b)))
    times = in_turns(timers, warmup=1, least=5, most=20, seconds=2)
    return max(2 * int(side) ** 3 / (min(taken) / 1000) for side, taken in times.items())


def memory_rate(device: str = "cpu") -> float:
    """Return the bytes a second of the fastest copy of a large array, read and written."""
    source = torch.ones(COPIED[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    taken = in_turns([stopwatch("copy", copy)], warmup=2, least=5, most=20, seconds=1)["copy"]
    return 2 * COPIED[device] / (min(taken) / 1000)


def random_matrix(side: int, precision: str, device: str) -> torch.Tensor:
    """Return a square matrix that fills its type's range of eight bits, or 0..1."""
    if precision == "int8":
        return torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device)
    return torch.rand(side, side, device=device).to(DTYPES[precision])


def flops(network: DeepImageMatting, height: int, width: int) -> int:
    """Return the FLOP of one picture, its padding included, without computing it."""
    with FlopCounterMode(display=False) as counter:
        run_empty(empty_like(network), height, width)
    return counter.get_total_flops()


def moved_values(network: DeepImageMatting, height: int, width: int) -> int:
    """Return how many values the layers read and write, weights included, each layer by itself."""
    empty, moved = empty_like(network), 0

    def count(layer: nn.Module, read: tuple[Tensor, ...], written: Tensor) -> None:
        nonlocal moved
        # Pooling gives the places of the maxima, too, and unpooling takes them.
        outputs = written if isinstance(written, tuple) else (written,)
        moved += sum(x.numel() for x in (*read, *outputs, *layer.parameters()))

    for layer in empty.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    run_empty(empty, height, width)
    return moved


def empty_like(network: DeepImageMatting) -> DeepImageMatting:
    """Return such a network without numbers: it tells shapes, and computes nothing."""
    return DeepImageMatting(refiner=network.refiner is not None).to("meta")


@torch.no_grad()
def run_empty(network: DeepImageMatting, height: int, width: int) -> None:
    """Run one on a picture, its padding included."""
    shape = [-(-side // STRIDE) * STRIDE for side in (height, width)]
    network(*(torch.empty(1, channels, *shape, device="meta") for channels in (3, 1)))
