"""How fast training goes: making samples, and whole steps, beside mmediting's transforms and loop.

Both use the same pictures on the same processor, in turns; samples are 320 x 320. mmediting reads
four files for each sample, which are in the system's cache here; we keep all pictures in memory and
compose anew. Samples are made on one core, steps (of stage 1) use all. One process runs both, so
freed memory is kept for both, as in our trainer. Where PyTorch finds a GPU, our samples and steps
are timed on it, too: a step must not wait for its samples.
"""

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import mmediting
from benchmarks.connectivity import hairy_alpha
from benchmarks.measure import Samples, Timer, in_turns, median, percentiles, stopwatch
from benchmarks.peers import SkippedError, require_bf16
from benchmarks.service import demo_image
from benchmarks.tables import Section
from client.arguments import positive
from matting.images import read_image, write_image
from train import synthesis
from train.dataset import BACKGROUNDS, Foreground, as_tensor, read_foregrounds
from train.initialise import randomise
from train.layouts import Composite, Files, evenly, find_files
from train.losses import matting_losses
from train.memory import keep_freed_memory, memory_format
from train.network import DeepImageMatting
from train.stages import stage
from train.synthesis import Synthesis

EXAMPLES = "example: python -m benchmarks training --data DATA"
QUICK = "few and small samples, one round"
DRAWN, DRAWN_SIZE = 4, (1082, 1297)
FOREGROUNDS = 20
"""Of a data set so many foregrounds, each on one background, are composed for mmediting."""

REFERENCE, OURS, PLAIN = "mmediting", "ours", "ours, as plain as mmediting's"
LOOP, FP32, BF16 = "mmediting, FP32, batches of 1", "ours, FP32", "ours, bf16"
MAKE, LEARN, BOTH = "making samples", "learning from samples that are there", "making and learning"
BATCHES, ROUNDS = 10, 5
"""So many batches in one measurement on a GPU, which works on while the next is prepared."""
# mmediting picks each foreground as often, crops 320 to 640 pixels, flips, and draws trimap kernels
# up to 29; no more.
AS_MMEDITING = {
    "softness": 0.0,
    "foreground_zoom": (1.0, 2.0),
    "background_zoom": (1.0, 2.0),
    "rotation_degrees": 0.0,
    "two_foregrounds": 0.0,
    "holes": 0.0,
    "trimap_kernel": (1, 30),
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
    "jpeg": 0.0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a data set (default: drawn hair of 1297 x 1082 pixels)",
    )
    parser.add_argument(
        "--batch-size", type=positive(int), default=4, help="of our steps (default: %(default)s)"
    )


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: milliseconds of every round, and how many samples a round makes."""
    count, batch = (2, 1) if options.quick else (32, options.batch_size)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        files = find_files(options.data or draw(Path(folder), 1 if options.quick else DRAWN))
        sources = Sources(
            mmediting.write_composites(to_compose(files), Path(folder)),
            read_foregrounds(files),
            [as_tensor(read_image(path)) for path in evenly(files.backgrounds, BACKGROUNDS)],
            side=64 if options.quick else mmediting.SIZE,
        )
        once = {"warmup": 0, "most": 1}
        with one_core():
            making = in_turns(
                makers(sources, count),
                title="samples",
                **(once if options.quick else {"warmup": 1, "most": 20, "seconds": 60}),
            )
        training = in_turns(
            trainers(sources, batch),
            title="steps",
            **(once if options.quick else {"warmup": 1, "most": 6, "seconds": 60}),
        )
        on_gpu = {}
        if torch.cuda.is_available():
            on_gpu = time_on_gpu(sources, "cuda", 1 if options.quick else stage(1).batch_size)
    sizes = [foreground.alpha.numel() / 1e6 for foreground in sources.foregrounds]
    return {
        "side": sources.side,
        "foregrounds": {"count": len(sizes), "megapixels": round(float(np.mean(sizes)), 2)},
        "making": {"samples": count, "samples_ms": making},
        "training": {"samples": batch, "samples_ms": training},
        **({"gpu": on_gpu} if on_gpu else {}),
    }


@dataclass(frozen=True)
class Sources:
    """What samples of `side` pixels are made of: mmediting's files, and our pictures in memory."""

    composites: list[mmediting.Files]
    foregrounds: list[Foreground]
    backgrounds: list[Tensor]
    side: int

    def to(self, device: str) -> "Sources":
        """Return the same with our pictures on a device."""
        foregrounds = [foreground.to(torch.device(device)) for foreground in self.foregrounds]
        backgrounds = [background.to(device) for background in self.backgrounds]
        return replace(self, foregrounds=foregrounds, backgrounds=backgrounds)

    def theirs(self, samples: int) -> DataLoader:
        """Return mmediting's loader of so many samples."""
        return mmediting.loader(self.composites, samples, self.side)

    def ours(self, samples: int, **recipe: object) -> Iterator[dict[str, Tensor]]:
        """Return our stream of batches of so many samples."""
        recipe = Synthesis(crop=self.side, **recipe)
        return iter(synthesis.Samples(self.foregrounds, self.backgrounds, recipe, samples, seed=0))


def makers(sources: Sources, count: int) -> list[Timer]:
    """Return what makes so many samples."""
    loader = sources.theirs(count)
    streams = {OURS: sources.ours(count), PLAIN: sources.ours(count, **AS_MMEDITING)}
    ours = [stopwatch(name, partial(next, stream)) for name, stream in streams.items()]
    return [stopwatch(REFERENCE, lambda: list(loader)), *ours]


def trainers(sources: Sources, batch: int) -> list[Timer]:
    """Return what learns from so many samples: mmediting one after the other, we in one step."""
    loader, loop = sources.theirs(batch), mmediting.Training(new_network())
    steps = {FP32: Steps(sources.ours(batch))}
    with contextlib.suppress(SkippedError):
        require_bf16()
        steps[BF16] = Steps(sources.ours(batch), torch.bfloat16)
    ours = [stopwatch(name, step) for name, step in steps.items()]
    return [stopwatch(LOOP, lambda: loop.steps(loader)), *ours]


def time_on_gpu(sources: Sources, device: str, batch: int) -> dict[str, object]:
    """Return milliseconds of making batches on a device, of learning from them, and of both."""
    stream = sources.to(device).ours(batch)
    ready = Steps(itertools.repeat(next(stream)), torch.bfloat16, device)
    both = Steps(stream, torch.bfloat16, device)

    def repeatedly(work: Callable[[], object]) -> None:
        for _ in range(BATCHES):
            work()
        if device == "cuda":
            torch.cuda.synchronize()

    work = {MAKE: partial(next, stream), LEARN: ready, BOTH: both}
    timers = [stopwatch(name, partial(repeatedly, one)) for name, one in work.items()]
    times = in_turns(timers, title="steps on the GPU", warmup=1, most=ROUNDS)
    return {"samples": batch * BATCHES, "samples_ms": times}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep OpenCV and PyTorch to one thread."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def to_compose(files: Files) -> list[Composite]:
    """Return what is composed for mmediting: foregrounds, each on a background of its own."""
    layers = evenly(files.pairs + [(path, path) for path in files.cutouts], FOREGROUNDS)
    backgrounds = itertools.cycle(files.backgrounds)
    return [Composite(f"{number}", *pair, next(backgrounds)) for number, pair in enumerate(layers)]


def new_network() -> DeepImageMatting:
    network = DeepImageMatting(refiner=False)
    randomise(network, seed=0)
    return network


class Steps:
    """Our training of stage 1, as `python -m train` does it, in FP32 or in mixed precision."""

    def __init__(
        self,
        stream: Iterator[dict[str, Tensor]],
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        self.stream, self.dtype, self.device, self.stage = stream, dtype, device, stage(1)
        self.network = (
            new_network().train().to(device, memory_format=memory_format(torch.device(device)))
        )
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.stage.learning_rate)

    def __call__(self) -> None:
        """Learn from one batch."""
        batch = next(self.stream)
        with torch.autocast(self.device, self.dtype, enabled=self.dtype is not None):
            alpha, refined = self.network(batch["image"], batch["trimap"])
            terms = matting_losses(alpha, refined, batch, dict(self.stage.losses))
        self.optimizer.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.stage.gradient_clip)
        self.optimizer.step()


def draw(folder: Path, count: int) -> Path:
    """Make a data set of drawn hair on enlarged photos, with grain as photos of that size have."""
    random = np.random.default_rng(0)
    for number in range(count):
        photos = [demo_image(name) for name in ("photo", "background")]
        foreground, background = photos[:: 1 if number % 2 else -1]
        for name, picture in (("pairs/foreground", foreground), ("backgrounds", background)):
            large = cv2.resize(picture, DRAWN_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
            grain = random.normal(0, 4, large.shape)
            write(folder / f"train/{name}/{number}.jpg", np.clip(large + grain, 0, 255))
        write(folder / f"train/pairs/alpha/{number}.png", hairy_alpha(*DRAWN_SIZE, seed=number))
    return folder


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels.astype(np.uint8))


def render(record: dict) -> list[Section]:
    """Return a record's tables."""
    tables = [rows(record["making"], "making samples"), rows(record["training"], "training")]
    return tables + (gpu_sections(record["gpu"]) if "gpu" in record else [])


def gpu_sections(part: dict) -> list[Section]:
    """Return how long a GPU takes over samples, and how long of a step it waits for them."""
    times = {name: median(values) for name, values in part["samples_ms"].items()}
    found = [
        {
            "on the GPU": name,
            "samples/s": f"{1000 * part['samples'] / ms:.1f}",
            "n": str(len(part["samples_ms"][name])),
        }
        for name, ms in times.items()
    ]
    waits = max(0.0, 1 - times[LEARN] / times[BOTH])
    return [found, f"Of a step's time the GPU waits {waits:.1%} for its samples."]


def rows(part: dict, title: str) -> list[dict[str, str]]:
    """Return the rows of one table."""
    slow = None
    found = []
    for name, values in part["samples_ms"].items():
        rate = 1000 * part["samples"] / median(values)
        slow = slow or rate
        p95 = percentiles(values)["p95"]
        found.append(
            {
                title: name,
                "samples/s": f"{rate:.2f}",
                "ms a sample": f"{1000 / rate:.1f}",
                "p95": "–" if p95 is None else f"{p95 / part['samples']:.1f}",
                "n": str(len(values)),
                "times mmediting's": f"{rate / slow:.2f}",
            }
        )
    return found


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    on_gpu = record.get("gpu", {"samples_ms": {}})["samples_ms"]
    return record["making"]["samples_ms"] | record["training"]["samples_ms"] | on_gpu
