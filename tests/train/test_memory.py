"""How memory is laid out, and whether what was freed is used again, as page faults show."""

import os
import subprocess
import sys

import pytest

MEGABYTES, TIMES = 64, 8
FAULTS = f"""
import resource, numpy
from train.memory import keep_freed_memory
if {{keep}}:
    keep_freed_memory()
numpy.ones({MEGABYTES} << 20, numpy.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    numpy.ones({MEGABYTES} << 20, numpy.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    code = FAULTS.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again():
    if faults(False) < TIMES * MEGABYTES / 4:  # a fault for each page, 2 MB if they are huge ones
        pytest.skip("this system's malloc keeps freed memory anyway")
    assert faults(True) < TIMES


FORMATS = """
import torch
from train.memory import memory_format
print(*(memory_format(torch.device(device)) for device in ("cpu", "cuda")))
"""


def test_weights_lie_as_a_processor_with_avx2_learns_fastest():
    done = subprocess.run(
        [sys.executable, "-c", FORMATS],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["torch.contiguous_format", "torch.channels_last"]
