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
    for _ in range(warmup):
        function()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        samples.append((time.perf_counter() - start) * 1000)
    median, p95 = np.percentile(samples, [50, 95])
    return {
        "median_ms": float(median),
        "p95_ms": float(p95),
        "min_ms": min(samples),
        "warmup": warmup,
        "repeats": repeats,
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
