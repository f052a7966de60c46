"""What this machine could do at best: its largest matrix-product rate, and what a network asks."""

from functools import partial

import torch
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


def random_matrix(side: int, precision: str, device: str) -> torch.Tensor:
    """Return a square matrix that fills its type's range of eight bits, or 0..1."""
    if precision == "int8":
        return torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device)
    return torch.rand(side, side, device=device).to(DTYPES[precision])


def flops(network: DeepImageMatting, height: int, width: int) -> int:
    """Return the FLOP of one picture, its padding included, without computing it."""
    shape = [-(-side // STRIDE) * STRIDE for side in (height, width)]
    empty = DeepImageMatting(refiner=network.refiner is not None).to("meta")
    image, trimap = (torch.empty(1, channels, *shape, device="meta") for channels in (3, 1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        empty(image, trimap)
    return counter.get_total_flops()
