"""Which measurements moved, and which only trembled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Samples, median

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Move:
    """A measurement whose median, in milliseconds, is not what it was."""

    name: str
    before: float
    after: float


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """Return where the true median lies with 95 % confidence, whatever the distribution.

    The interval ends at order statistics of the samples (Conover, Practical Nonparametric
    Statistics, section 3.2). None with fewer than six samples, which cannot say.
    """
    n = len(samples)
    allowed = (1 - CONFIDENCE) / 2 * 2**n
    outside, below = 0, 0  # below counts the smallest samples that may be left out
    while (outside := outside + math.comb(n, below)) <= allowed:
        below += 1
    ordered = sorted(samples)
    return (ordered[below - 1], ordered[n - below]) if below else None


def find_moves(before: Samples, after: Samples) -> list[Move]:
    """Return what is in both and whose intervals of the median do not touch, largest first."""
    moves = []
    for name in [name for name in after if name in before]:
        intervals = median_interval(before[name]), median_interval(after[name])
        if None in intervals:
            continue
        (low, high), (new_low, new_high) = intervals
        if new_low > high or new_high < low:
            moves.append(Move(name, median(before[name]), median(after[name])))
    return sorted(moves, key=lambda move: -abs(math.log(move.after / move.before)))
