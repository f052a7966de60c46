"""Which measurements changed, which only fluctuated, and for which that cannot be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Samples, median

CONFIDENCE = 0.95
LEAST = 0.05
"""Smaller changes do not count: the same request, timed twice in one run, differed by as much."""


@dataclass(frozen=True)
class Move:
    """A measurement whose median, in milliseconds, is not what it was."""

    name: str
    before: float
    after: float

    @property
    def size(self) -> float:
        """The logarithm of the ratio, whichever way it moved."""
        return abs(math.log(self.after / self.before))


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return where the true median lies with 95 % confidence, whatever the distribution.

    NaN with fewer than six samples, which cannot say.
    """
    from scipy.stats import quantile_test  # takes a second to load

    low, high = quantile_test(samples, p=0.5).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def find_moves(before: Samples, after: Samples) -> tuple[list[Move], list[str]]:
    """Compare what is in both.

    Returns
    -------
    list, list
        What moved by `LEAST` or more, the intervals of its medians apart, largest first; and the
        names of what was repeated too rarely, or scatters too much, to say.
    """
    moves, unclear = [], []
    for name in [name for name in after if name in before]:
        low, high = median_interval(before[name])
        new_low, new_high = median_interval(after[name])
        move = Move(name, median(before[name]), median(after[name]))
        too_few, apart = math.isnan(low + new_low), new_low > high or new_high < low
        differ = move.size >= math.log1p(LEAST)
        if differ and apart:
            moves.append(move)
        elif differ or too_few:
            unclear.append(name)
    return sorted(moves, key=lambda move: -move.size), unclear
