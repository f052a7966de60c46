"""Which measurements moved, and which only trembled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import quantile_test

from benchmarks.measure import Samples, median

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Move:
    """A measurement whose median, in milliseconds, is not what it was."""

    name: str
    before: float
    after: float


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return where the true median lies with 95 % confidence, whatever the distribution.

    NaN with fewer than six samples, which cannot say.
    """
    low, high = quantile_test(samples, p=0.5).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def find_moves(before: Samples, after: Samples) -> list[Move]:
    """Return what is in both and whose intervals of the median do not touch, largest first."""
    moves = []
    for name in [name for name in after if name in before]:
        low, high = median_interval(before[name])
        new_low, new_high = median_interval(after[name])
        if new_low > high or new_high < low:
            moves.append(Move(name, median(before[name]), median(after[name])))
    return sorted(moves, key=lambda move: -abs(math.log(move.after / move.before)))
