"""The flicker benchmark's clips move as said, and a real server mattes them."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.flicker import MOTION, WAYS, make_clip
from export.parity import read_pictures
from server.launcher import Server


def test_all_ways_are_measured(server: Server, data: Path, tmp_path: Path) -> None:
    command = ["flicker", "--quick", "--url", server.grpc_url, "--data", str(data)]
    assert main([*command, "-o", str(tmp_path)]) == 0
    (clip,) = json.loads((tmp_path / "flicker.json").read_text())["clips"]
    assert clip["ways"].keys() == set(WAYS)
    for found in clip["ways"].values():
        # The change of an error is at most twice the error.
        assert 0 < found["flicker"] < 2 * found["error"]
    own = [clip["ways"][name]["flicker"] for name, way in WAYS.items() if not way.band]
    assert len({*own}) == len(own) == 3
    assert "1 clips of 2 frames" in (tmp_path / "flicker.md").read_text()


def test_the_subject_moves_and_the_background_stays() -> None:
    first, second = make_clip(next(read_pictures()), 2)
    right, down = MOTION
    for kind in ("alpha", "trimap"):
        before, after = getattr(first, kind), getattr(second, kind)
        np.testing.assert_array_equal(after[down:, right:], before[:-down, :-right])
    is_background = (first.alpha == 0) & (second.alpha == 0)
    assert is_background.any()
    np.testing.assert_array_equal(first.image[is_background], second.image[is_background])
