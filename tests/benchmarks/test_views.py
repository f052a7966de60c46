"""The views benchmark asks a real server, and sums up known samples right."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.views import render
from server.launcher import Server


def test_every_number_of_views_is_judged(server: Server, data: Path, tmp_path: Path) -> None:
    command = ["views", "--quick", "--url", server.grpc_url, "--data", str(data)]
    assert main([*command, "-o", str(tmp_path)]) == 0
    (case,) = json.loads((tmp_path / "views.json").read_text())["pictures"]
    assert case["metrics"].keys() == case["samples_ms"].keys() == {"1", "2", "4"}
    assert len({metrics["SAD"] for metrics in case["metrics"].values()}) == 3
    assert "Means over 1 pictures." in (tmp_path / "views.md").read_text()


def test_means_and_ratios_of_known_samples() -> None:
    def case(one: float, two: float, took: float) -> dict:
        metrics = {
            views: {"SAD": sad, "MSE": 0.01, "GRAD": 1.0, "CONN": 2.0}
            for views, sad in (("1", one), ("2", two))
        }
        return {"metrics": metrics, "samples_ms": {"1": [100, 300, 100], "2": [took]}}

    record = {"pictures": [case(4, 3, 190), case(8, 6, 200), case(3, 4, 250)]}
    (one, two), note = render(record)
    assert (one["time"], one["SAD"], one["better in SAD"]) == ("1.00×", "5.00", "–")
    assert (two["time"], two["SAD"]) == ("2.00×", "4.33 (-13.3%)")
    assert two["better in SAD"] == "2 of 3"
    assert note == "Means over 3 pictures."
