"""Requests under load, answered by the real server."""

import argparse
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.throughput import plan


def test_points_of_a_real_server(report: Path) -> None:
    points = json.loads((report / "throughput.json").read_text())["points"]
    assert len(points) == 4
    for point in points:
        answered = len(point["samples_ms"])
        assert answered >= 2 * point["concurrency"]
        # Little's law: requests under way = rate x time of each.
        seconds = sum(point["samples_ms"]) / answered / 1000
        under_way = point["images_per_second"] / point["batch"] * seconds
        assert 0.5 * point["concurrency"] < under_way <= 1.001 * point["concurrency"]
    assert len((report / "throughput.md").read_text().splitlines()) == 2 + len(points)


def test_every_point_is_measured_once() -> None:
    options = argparse.Namespace(size=(320, 320), concurrency=[1, 4], batch=[1, 8], quick=False)
    points = [tuple(point.values()) for point in plan(options)]
    assert points[:3] == [(320, 320, 1, 1), (320, 320, 4, 1), (320, 320, 1, 8)]
    assert len(points) == len(set(points))
