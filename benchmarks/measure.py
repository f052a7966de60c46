"""What every benchmark shares: the machine it ran on, and how long things take."""

import os
import platform
import random
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from tqdm import tqdm

from export.engine import find_gpu
from export.errors import ExportError
from export.manifest import installed_versions
from export.processor import cpu_field, cpu_flags

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "scipy",
    "pykdtree",
    "torch",
    "onnxruntime",
    "openvino",
    "mnn",
    "tensorrt",
    "tritonclient",
    "nvidia-pytriton",
    "pymatting",
)

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "i8mm")
"""Processor features, as Linux spells them, that decide how fast a network runs; the best last."""

Timer = Callable[[], dict[str, float]]
"""Does something once and returns by name how many milliseconds it, or each part of it, took."""

Samples = dict[str, list[float]]
"""Milliseconds of every repetition, by name."""

PERCENTILES = (50, 90, 95, 99)


def machine() -> dict[str, object]:
    """Describe this machine: processor, cores this process may use, memory, GPU, versions.

    A virtual machine's processor may have a name that says little: family and model tell more.
    """
    numbers = [number for name in ("cpu family", "model") if (number := cpu_field(name))]
    return {
        "cpu": cpu_field("model name") or platform.processor() or platform.machine(),
        "family_model": "/".join(numbers),
        "instructions": sorted(instructions()),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(load, 1) for load in os.getloadavg()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": installed_versions(PACKAGES),
    }


def instructions() -> set[str]:
    """Return which of `INSTRUCTIONS` this processor has."""
    return set(INSTRUCTIONS) & cpu_flags()


def stopwatch(name: str, function: Callable[[], object]) -> Timer:
    """Make a timer of a function."""

    def timer() -> dict[str, float]:
        start = time.perf_counter()
        function()
        return {name: (time.perf_counter() - start) * 1000}

    return timer


def in_turns(
    timers: Sequence[Timer],
    *,
    warmup: int = 3,
    least: int = 3,
    most: int = 20,
    seconds: float = float("inf"),
    title: str = "",
) -> Samples:
    """Run several timers round after round, so that what disturbs one disturbs all.

    Each round starts with another, and after the first round the rest are in a random order, the
    same in every measurement, so that none always follows the same.

    Parameters
    ----------
    timers : sequence of Timer
        What they return has different names.
    warmup, least, most : int
        Rounds that do not count; at least and at most so many that do.
    seconds : float
        No new round, after the least number, once the rounds that count have taken so long.
    title : str
        Shown at the progress bar; no bar without one.
    """
    samples: Samples = {}
    orders = random.Random(0)
    with tqdm(
        total=warmup + most, desc=title, unit="round", disable=None if title else True
    ) as bar:
        for _ in range(warmup):
            for timer in timers:
                timer()
            bar.update()
        end = time.monotonic() + seconds
        for done in range(most):
            if done >= least and time.monotonic() > end:
                break
            others = list(timers)
            first = others.pop(done % len(others))
            if done:  # the first round is as given: so are the samples' names
                orders.shuffle(others)
            for timer in [first, *others]:
                for name, milliseconds in timer().items():
                    samples.setdefault(name, []).append(round(milliseconds, 3))
            bar.update()
    return samples


def samples_of(cases: Iterable[dict], name: str) -> Samples:
    """Return all milliseconds of a record's cases, "NAME OF THE CASE, NAME OF THE TIMER"."""
    return {
        f"{case[name]}, {timer}": values
        for case in cases
        for timer, values in case["samples_ms"].items()
    }


def percentiles(samples: Sequence[float]) -> dict[str, float | None]:
    """Return "p50", "p90", "p95" and "p99" of milliseconds.

    None where there are too few samples: of fewer than a hundred, none may lie beyond p99.
    """
    return {
        f"p{percent}": float(np.percentile(samples, percent))
        if len(samples) * (100 - percent) >= 100 or percent == 50
        else None
        for percent in PERCENTILES
    }


def median(samples: Sequence[float]) -> float:
    """Return the 50th percentile."""
    return float(np.median(samples))


def how_often(rounds: Sequence[int]) -> str:
    """Say what times in a table are, from the number of repetitions of each."""
    if max(rounds) == 1:
        return "each was timed once"
    different = rounds if len(set(rounds)) > 1 else rounds[:1]
    return f"medians of {', '.join(map(str, different))} rounds"


def _gpu() -> str | None:
    """Return name and driver of the first GPU, None without one."""
    try:
        gpu = find_gpu()
    except ExportError:
        return None
    return f"{gpu.name}, {gpu.driver}"
