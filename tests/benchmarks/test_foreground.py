"""The foreground benchmark measures what it says, and ours is no worse than the solver."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.foreground import IMAGE, OURS, SOLVER, composites, error


def test_error_is_weighted_with_alpha_and_leaves_opaque_pixels_out() -> None:
    truth = np.zeros((1, 4, 3), np.uint8)
    found = np.array([[[9] * 3, [30] * 3, [90] * 3, [200] * 3]], np.uint8)
    alpha = np.array([[0, 51, 102, 255]], np.uint8)
    assert error(found, truth, alpha) == pytest.approx((30 * 0.2 + 90 * 0.4) / 0.6)


def test_both_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hair of a composite, for the solver may be run as plain Python (see tests/run.sh)."""
    name, *layers = next(composites())
    hair = (name, *(layer[30:70, 120:170] for layer in layers))
    monkeypatch.setattr("benchmarks.foreground.composites", lambda: [hair])
    assert main(["foreground", "--quick", "-o", str(tmp_path)]) == 0
    (case,) = json.loads((tmp_path / "foreground.json").read_text())["cases"]
    assert case["errors"][OURS] < case["errors"][SOLVER] < case["errors"][IMAGE]
    assert len(case["samples_ms"][OURS]) == len(case["samples_ms"][SOLVER]) >= 3
