"""The connectivity benchmark compares like with like."""

import json
from pathlib import Path

import pytest

from benchmarks.connectivity import hairy_alpha, reference, with_prediction
from matting.metrics import connectivity_error


@pytest.mark.parametrize("seed", range(3))
def test_reference_and_matting_agree_on_drawn_mattes(seed: int) -> None:
    case = with_prediction(hairy_alpha(240, 320, seed))
    assert reference(*case) > 0
    assert connectivity_error(*case) == pytest.approx(reference(*case), rel=1e-6)


def test_both_computations_are_timed_and_equal(report: Path) -> None:
    (case,) = json.loads((report / "connectivity.json").read_text())["cases"]
    assert case["equal"]
    assert len(case["samples_ms"]["reference"]) == len(case["samples_ms"]["matting"]) >= 3
