"""Types of the command lines' options."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress


def values(kind: type, are: Callable[[float], bool], described: str) -> Callable[[str], float]:
    """Return an argparse type that refuses values that are not as described."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if are(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text} is not {described}")

    return read


count = values(int, lambda value: value >= 1, "a number from 1")
rate = values(float, lambda value: 0 < value < math.inf, "a number above 0")
seed_number = values(int, lambda value: 0 <= value < 2**32, "a number from 0, below 2^32")
decay = values(float, lambda value: 0 <= value < 1, "a number from 0, below 1")


def devices(text: str) -> str | int:
    """Read how many devices: a number from 1, or "auto"."""
    return text if text == "auto" else count(text)
