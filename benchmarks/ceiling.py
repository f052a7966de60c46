"""What this machine could do at best: its largest matrix-product rate, and what a network asks."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import in_turns, stopwatch
from train.network import STRIDE, DeepImageMatting

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = {"cpu": 2048, "cuda": 8192}


def matrix_rate(precision: str = "fp32", device: str = "cpu") -> float:
    """Return the FLOP/s of the fastest of some large matrix products."""
    side = SIDE[device]
    a, b = (torch.rand(side, side, device=device).to(DTYPES[precision]) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    times = in_turns([stopwatch("product", product)], warmup=1, least=5, most=20, seconds=2)
    return 2 * side**3 / (min(times["product"]) / 1000)


def flops(network: DeepImageMatting, height: int, width: int) -> int:
    """Return the FLOP of one picture, its padding included, without computing it."""
    shape = [-(-side // STRIDE) * STRIDE for side in (height, width)]
    empty = DeepImageMatting(refiner=network.refiner is not None).to("meta")
    image, trimap = (torch.empty(1, channels, *shape, device="meta") for channels in (3, 1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        empty(image, trimap)
    return counter.get_total_flops()
