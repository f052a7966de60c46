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


FORMAT = "import torch; from train.memory import memory_format as m; print(m(torch.device({!r})))"


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", "contiguous_format"), ("cuda", "channels_last")]
)
def test_weights_lie_as_a_processor_with_avx2_learns_fastest(device, expected):
    done = subprocess.run(
        [sys.executable, "-c", FORMAT.format(device)],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"torch.{expected}"
