"""The benchmark compares like with like, and its timing helper counts right."""

import numpy as np
import pytest

from benchmarks.connectivity import hairy_alpha, reference, with_prediction
from benchmarks.measure import machine, timed
from matting.metrics import connectivity_error


@pytest.mark.parametrize("seed", range(3))
def test_reference_and_matting_agree_on_drawn_mattes(seed: int) -> None:
    case = with_prediction(hairy_alpha(240, 320, seed))
    assert reference(*case) > 0
    assert connectivity_error(*case) == pytest.approx(reference(*case), rel=1e-6)


def test_timed_calls_warm_up_and_repeats() -> None:
    calls = []
    result = timed(lambda: calls.append(1), warmup=2, repeats=5)
    assert len(calls) == 7
    assert 0 <= result["min_ms"] <= result["median_ms"] <= result["p95_ms"]


def test_machine_names_what_runs() -> None:
    found = machine()
    assert found["packages"]["numpy"] == np.__version__
    assert found["cores"] >= 1
