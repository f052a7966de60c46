"""The tiles benchmark measures a real server, and sums up known samples right."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.tiles import HALF, TILED, WHOLE, enlarge, laws
from export.parity import Picture
from export.repository import CONFIG, MODEL, with_parameters
from server.launcher import Server, launch


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client take a small picture for a large one."""
    monkeypatch.setattr("client.tiles.LARGEST_ALWAYS_WHOLE", 0)
    monkeypatch.setattr("client.connection.HALVED_FROM", 0)


@pytest.mark.usefixtures("small_is_large")
def test_all_ways_are_measured(tmp_path: Path, server: Server) -> None:
    assert main(["tiles", "--quick", "--url", server.grpc_url, "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "tiles.json").read_text())
    (case,) = record["pictures"]
    assert (case["height"], case["width"], case["tiles"]) == (170, 300, 1)
    assert 0 < case["unknown"] < 1
    whole, tiled, half = (case["SAD"][way] for way in (WHOLE, TILED, HALF))
    assert tiled != whole and tiled == pytest.approx(whole, rel=0.05)
    assert 1.1 * whole < half < 2 * whole
    assert case["samples_ms"].keys() == case["SAD"].keys() == {WHOLE, TILED, HALF}
    assert min(min(samples) for samples in case["samples_ms"].values()) > 0
    assert "times faster (median)" in (tmp_path / "tiles.md").read_text()


@pytest.mark.usefixtures("small_is_large")
def test_memory_is_measured_with_a_new_server_each_way(
    tmp_path: Path, quick_repository: Path
) -> None:
    command = ["tiles", "--quick", "--repository", str(quick_repository)]
    assert main([*command, "-o", str(tmp_path)]) == 0
    memory = json.loads((tmp_path / "tiles.json").read_text())["memory_gib"]
    assert 0 < 0.9 * memory["ready"] < min(memory[way] for way in (WHOLE, TILED, HALF))
    assert "Memory of the server for 170x300" in (tmp_path / "tiles.md").read_text()


def test_large_pictures_stay_as_they_are() -> None:
    shape = (30, 40)
    picture = Picture(
        "p", np.zeros((*shape, 3), np.uint8), np.full(shape, 128, np.uint8), np.zeros(shape)
    )
    assert enlarge(picture, 0.001).trimap.shape == shape
    assert enlarge(picture, 0.0048).trimap.shape == (60, 80)


def test_a_larger_trimap_has_no_new_values() -> None:
    trimap = np.zeros((30, 40), np.uint8)
    trimap[:, 20:] = 255
    picture = Picture("p", np.dstack([trimap] * 3), trimap, trimap)
    assert {*enlarge(picture, 0.004).trimap.flat} == {0, 255}


def test_medians_and_law_of_known_samples() -> None:
    cases = [
        {
            "height": 1000,
            "width": 1000,
            "unknown": unknown,
            "SAD": {WHOLE: sad, TILED: sad + 0.1, HALF: 9},
            "samples_ms": {
                WHOLE: [1, 3000, 9000],
                TILED: [1000 + 5000 * unknown] * 3,
                HALF: [500 + 1000 * unknown] * 3,
            },
        }
        for unknown, sad in ((0.0, 5), (0.1, 10), (0.2, 15), (0.1, 10), (0.0, 5), (0.2, 15))
    ]
    assert len(laws(cases[:5])) == 2  # too few for a line
    assert laws(cases) == [
        "tiles where they pay: 2.00 times faster (median); mean SAD changes by +1.00%.",
        "--half: 5.00 times faster (median); mean SAD changes by -10.00%.",
        "Seconds for a megapixel, ± standard error: "
        "1.00 + (5.0 ± 0.0) × unknown share, tiles where they pay; "
        "0.50 + (1.0 ± 0.0) × unknown share, --half; 3.00 whole.",
    ]


def test_what_is_too_large_to_go_whole_is_measured_in_tiles(
    tmp_path: Path, quick_copy: Path
) -> None:
    config = quick_copy / MODEL / CONFIG
    config.write_text(with_parameters(config.read_text(), max_pixels="45000"))
    out = tmp_path / "out"
    with launch(quick_copy) as server:
        assert main(["tiles", "--quick", "--url", server.grpc_url, "-o", str(out)]) == 0
    (case,) = json.loads((out / "tiles.json").read_text())["pictures"]
    assert case["SAD"].keys() == case["samples_ms"].keys() == {TILED, HALF}
    assert (out / "tiles.md").read_text().count(" – |") == 2
