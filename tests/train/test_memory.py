"""How memory is laid out, and whether what was freed is used again, as page faults show."""

import os
import subprocess
import sys

import pytest

MEGABYTES, TIMES = 64, 8
FAULTS = f"""
import resource, numpy
from train.memory import keep_freed_memory

def faults():
    numpy.ones({MEGABYTES} << 20, numpy.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({TIMES}):
        numpy.ones({MEGABYTES} << 20, numpy.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_freed_memory()
print(usual, faults())
"""


def test_freed_memory_is_used_again():
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    if usual < TIMES * MEGABYTES / 4:  # a fault for each page, 2 MB if they are huge ones
        pytest.skip("this system's malloc keeps freed memory anyway")
    assert kept < TIMES


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
