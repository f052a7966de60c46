"""Several real servers share the work, and one of them is killed."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.scaling import pinned_servers, rates, send
from benchmarks.service import model_config, picture_of
from client.connection import Matte
from export.repository import CONFIG, MODEL, TEMPLATE


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each of two servers")
def test_servers_share_the_work_and_a_death_loses_no_image(tmp_path: Path) -> None:
    command = ["scaling", "--quick", "--servers", "2", "-o", str(tmp_path)]
    assert main(command) == 0
    result = json.loads((tmp_path / "scaling.json").read_text())
    one, two = result["runs"]
    assert one["answered by each"] == [8]
    assert sum(two["answered by each"]) == 16
    assert min(two["answered by each"]) >= 4
    death = result["death"]
    assert death["answered"] == death["sent"] == 16 and not result["failed"]
    # The survivor answered what the other one had not.
    assert death["answered by each"][0] >= 8
    assert "One of 2 servers killed half way: 16 images" in (tmp_path / "scaling.md").read_text()


def test_rates_are_of_what_was_answered() -> None:
    runs = [
        {"servers": count, "sent": 9, "answered": 8, "seconds": seconds}
        for count, seconds in ((1, 2.0), (2, 1.0), (1, 4.0))
    ]
    assert rates({"runs": runs}) == {1: [4.0, 2.0], 2: [8.0]}


def test_what_no_server_answers_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scaling.Matte", partial(Matte, timeout=0.001))
    with pinned_servers(TEMPLATE.parent, 1) as servers:
        run = send(servers, picture_of(64, 64), 2)
    assert (run["sent"], run["answered"]) == (2, 0)


def test_a_server_has_one_thread_whatever_its_model_asks_for(quick_copy: Path) -> None:
    config = quick_copy / MODEL / CONFIG
    written = '"threads" value { string_value: "0" }'
    assert written in config.read_text()
    config.write_text(config.read_text().replace(written, '"threads" value: {string_value: "2"}'))
    with pinned_servers(quick_copy, 1) as (server,):
        assert model_config(server.grpc_url).parameters["threads"].string_value == "1"
