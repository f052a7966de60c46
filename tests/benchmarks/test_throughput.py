"""Requests under load, answered by the real server."""

import argparse
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.throughput import agreement, plan


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
    _, _, *rows = (report / "throughput.md").read_text().splitlines()[: 2 + len(points)]
    assert [row.startswith("| 64x64 ") for row in rows].count(True) == 3
    cells = [row.strip("|").split("|") for row in rows]
    assert [int(row[7]) for row in cells] == [len(point["samples_ms"]) for point in points]


def test_every_point_is_measured_once() -> None:
    options = argparse.Namespace(size=(320, 320), concurrency=[1, 4], batch=[1, 8], quick=False)
    points = [tuple(point.values()) for point in plan(options)]
    assert points[:3] == [(320, 320, 1, 1), (320, 320, 4, 1), (320, 320, 1, 8)]
    assert len(points) == len(set(points))


def test_two_load_generators_are_held_against_each_other() -> None:
    point = {"height": 64, "width": 96, "batch": 1, "images_per_second": 2.0}
    points = [
        point | {"concurrency": 1, "perf_analyzer": 1.5},
        point | {"concurrency": 2, "perf_analyzer": 2.1},
        point | {"concurrency": 4, "perf_analyzer": 2.02},
        point | {"concurrency": 8, "perf_analyzer": None},
    ]
    assert agreement(points) == [
        [
            "perf_analyzer beside this client: +1.0% (median); furthest -25.0%, "
            "64x96, concurrency 1, batch 1."
        ]
    ]
    assert agreement(points[3:]) == []
