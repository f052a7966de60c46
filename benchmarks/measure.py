"""What every benchmark shares: the machine it ran on, timing with median and 95th percentile."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "torch",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tritonclient",
    "nvidia-pytriton",
)


def machine() -> dict[str, object]:
    """Describe this machine: processor, cores this process may use, memory, GPU, versions."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
    }


def timed(
    function: Callable[[], object], warmup: int = 3, repeats: int = 20
) -> dict[str, float | int]:
    """Call a function again and again; return median, 95th percentile and minimum in ms."""
    return timed_in_turns({"": function}, warmup, repeats)[""]


def timed_in_turns(
    functions: dict[str, Callable[[], object]], warmup: int = 3, repeats: int = 20
) -> dict[str, dict[str, float | int]]:
    """Time several functions as `timed` does, in turns, so that what disturbs one disturbs all."""
    samples = {name: [] for name in functions}
    for turn in range(-warmup, repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= 0:
                samples[name].append((time.perf_counter() - start) * 1000)
    return {
        name: {
            "median_ms": float(np.median(times)),
            "p95_ms": float(np.percentile(times, 95)),
            "min_ms": min(times),
            "warmup": warmup,
            "repeats": repeats,
        }
        for name, times in samples.items()
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gpu_name() -> str | None:
    """Name and driver of the GPUs as nvidia-smi gives them, None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.strip().replace("\n", "; ") or None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
