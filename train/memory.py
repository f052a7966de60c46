"""How training lays numbers out in memory, and how its process holds memory on a CPU."""

import ctypes
import sys

import torch

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Make malloc use freed memory again instead of giving it back to the system.

    glibc maps every large block anew, and the system clears each of its pages when it is first
    touched: 280,000 page faults a step of 4 samples of 320 x 320, 0.8 s of a processor. Does
    nothing where malloc is not glibc's.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if mallopt := getattr(library, "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the order of numbers in which a network trains fastest on a device.

    That is channels_last, but not on processors without AVX-512: oneDNN (3.12) computes gradients
    of convolutions' weights in it there, with AVX2, in twice to three times the time.
    """
    plain = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return torch.contiguous_format if plain else torch.channels_last
