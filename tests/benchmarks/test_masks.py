"""The masks benchmark counts what a trimap misses, and asks a real server for the rest."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.masks import COARSE, EXACT, GIVEN, coarse_mask, judge
from client.connection import Matte
from export.parity import Picture
from server.launcher import Server


def test_all_trimaps_are_judged(server: Server, data: Path, tmp_path: Path) -> None:
    command = ["masks", "--quick", "--url", server.grpc_url, "--data", str(data)]
    assert main([*command, "-o", str(tmp_path)]) == 0
    (case,) = json.loads((tmp_path / "masks.json").read_text())["pictures"]
    found = {trimap["mask"]: trimap for trimap in case["trimaps"]}
    assert found.keys() == {GIVEN, EXACT, COARSE}
    for trimap in found.values():
        assert 0 < trimap["unknown"] < 1
        assert 0 <= trimap["missed"] < trimap["SAD"]
    assert len((tmp_path / "masks.md").read_text().splitlines()) == 6


def test_what_is_missed_counts(server: Server) -> None:
    alpha = np.full((40, 50), 51, np.uint8)
    trimap = np.full_like(alpha, 0)
    picture = Picture("p", np.zeros((40, 50, 3), np.uint8), trimap, alpha)
    with Matte(server.grpc_url) as matte:
        found = judge(matte, picture, trimap)
    assert found == {"unknown": 0, "missed": pytest.approx(0.4), "SAD": pytest.approx(0.4)}


def test_a_coarse_mask_has_the_object_but_not_its_hairs() -> None:
    alpha = cv2.circle(np.zeros((161, 203), np.uint8), (100, 80), 50, 255, cv2.FILLED)
    hairy = cv2.line(alpha.copy(), (100, 80), (200, 0), 255)
    mask = coarse_mask(hairy)
    wrong = mask != (alpha > 127)
    assert mask.shape == alpha.shape
    assert 0 < wrong.sum() < 0.1 * mask.sum()
    assert not mask[0:20, 180:].any()


def test_no_picture_is_small_enough(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["masks", "--data", str(data), "--megapixels", "0.001"]) == 2
    assert "no picture has 0.001 megapixels or less" in capsys.readouterr().err
