"""A real server with more to do than it has room for, and what is said of photos that go wrong."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.soak import Memory, Photo, Reply, Soak, connections, growth, verdict
from server.launcher import LaunchError

SHIPPED = Path(__file__).parents[2] / "model_repository/dim"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The shipped model with a short queue, so that it is soon empty at the end."""
    model = tmp_path / "models/dim"
    model.mkdir(parents=True)
    (model / "1").symlink_to(SHIPPED / "1")
    config = (SHIPPED / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(config.replace("max_queue_size: 64", "max_queue_size: 4"))
    return model.parent


def test_more_than_it_has_room_for_loses_nothing(tmp_path: Path, repository: Path) -> None:
    assert main(["soak", "--quick", "--repository", str(repository), "-o", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "soak.json").read_text())
    assert result["room"] == 4 + 1
    parts = result["parts"]
    assert sum(part["answered"] for part in parts) == result["sent"] >= 2 * result["room"]
    assert sum(part["rejections"] for part in parts) > 0
    assert len(parts) == 5 and all(part["server_mb"] > 50 for part in parts)
    text = (tmp_path / "soak.md").read_text()
    assert "0 lost, 0 answered twice, 0 with an alpha other than the photo's" in text


@pytest.mark.parametrize(
    ("wrong", "by_server", "what"),
    [
        ({"is_same": False, "error": "no server"}, 2, "lost"),
        ({}, 4, "answered twice"),
        ({"is_same": False}, 3, "wrong alphas"),
    ],
)
def test_one_photo_that_goes_wrong_is_a_failure(wrong: dict, by_server: int, what: str) -> None:
    right = Reply("bulk", sent=0, seconds=1, rejections=0, is_same=True, error=None)
    assert not verdict([right] * 3, 3)["failed"]
    found = verdict([right, right, replace(right, **wrong)], by_server)
    assert found["failed"] and found[what] == 1
    others = {"lost", "answered twice", "wrong alphas"} - {what}
    assert not any(found[other] for other in others)


def test_memory_grows_by_megabytes_an_hour_after_the_first_part() -> None:
    memory = [Memory(at=60.0 * n, server=max(500, 490 + n), client=80.0) for n in range(50)]
    assert growth(memory) == {"server": 60, "client": 0}


def test_a_server_that_dies_ends_the_run() -> None:
    photo = Photo(
        np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 128, np.uint8), np.zeros((8, 8), np.uint8)
    )
    with subprocess.Popen(["true"]) as dead, connections("127.0.0.1:9") as mattes:
        dead.wait()
        with pytest.raises(LaunchError, match="died on the way"):
            Soak(mattes, [photo], seconds=4).run(dead.pid, bulk=2, pause=0.1)
