"""The edges benchmark asks a real server, and sums up known samples right."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.edges import PLAIN, WAYS, render
from server.launcher import Server


def test_every_way_is_judged(server: Server, data: Path, tmp_path: Path) -> None:
    command = ["edges", "--quick", "--url", server.grpc_url, "--data", str(data)]
    assert main([*command, "-o", str(tmp_path)]) == 0
    (case,) = json.loads((tmp_path / "edges.json").read_text())["pictures"]
    assert case["metrics"].keys() == case["samples_ms"].keys() == WAYS.keys()
    assert len({metrics["SAD"] for metrics in case["metrics"].values()}) == len(WAYS)
    assert "Means over 1 pictures; each was timed once." in (tmp_path / "edges.md").read_text()


def test_means_and_ratios_of_known_samples() -> None:
    def case(one: float, two: float, took: float) -> dict:
        metrics = {
            way: {"SAD": sad, "MSE": 0.01, "GRAD": 1.0, "CONN": 2.0}
            for way, sad in ((PLAIN, one), ("--knn", two))
        }
        return {"metrics": metrics, "samples_ms": {PLAIN: [100, 300, 100], "--knn": [took] * 3}}

    record = {"pictures": [case(4, 3, 190), case(8, 6, 200), case(3, 4, 250)]}
    (one, two), note = render(record)
    assert (one["time"], one["SAD"], one["better in SAD"]) == ("1.00×", "5.00", "–")
    assert (two["time"], two["SAD"]) == ("2.00×", "4.33 (-13.3%)")
    assert two["better in SAD"] == "2 of 3"
    assert note == "Means over 3 pictures; medians of 3 rounds."
