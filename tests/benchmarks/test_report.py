"""The report of real measurements, and what it says of an older one."""

import argparse
import json
import xml.etree.ElementTree as ElementTree
from math import nan
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.against import find_moves, median_interval
from benchmarks.report import measure_all, moved, samples


def test_the_page_has_every_table_and_loads_nothing(report: Path) -> None:
    page = (report / "report.html").read_text()
    markdown = (report / "report.md").read_text()
    for name in ("latency", "throughput", "connectivity"):
        assert f"<h2>{name.capitalize()}</h2>" in page
        assert (report / f"{name}.md").read_text() in markdown
    assert "src=" not in page.replace('src="data:', "")
    assert "<link" not in page and "<script" not in page
    drawings = [part.split("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
    assert len(drawings) == 4
    for drawing in drawings:
        assert ElementTree.fromstring(f"<svg{drawing}").findall(".//{*}path")


def test_a_report_has_not_moved_against_itself(report: Path) -> None:
    record = json.loads((report / "report.json").read_text())
    (text,) = moved(record, record)
    times = samples(record)
    assert times.keys() >= {
        "latency, 64x64, gRPC, end to end",
        "throughput, 64x64, concurrency 1, batch 2",
        "connectivity, 480x640, matting",
    }
    assert text.startswith(f"0 of {len(times)} times moved")


def test_what_moved_is_named(report: Path) -> None:
    new = json.loads((report / "report.json").read_text())
    old = json.loads((report / "report.json").read_text())
    (case,) = old["records"]["connectivity"]["cases"]
    case["samples_ms"]["matting"] = [10 * x for x in case["samples_ms"]["matting"]]
    text, (row,) = moved(old, new)
    assert text.startswith("1 of ")
    assert row["what"] == "connectivity, 480x640, matting"
    assert row["change"] == "-90.0%"


@pytest.mark.parametrize(
    ("count", "ends"),
    [(5, (nan, nan)), (6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (100, (40, 61))],
)
def test_interval_of_the_median_is_the_tabled_one(count: int, ends: tuple[float, float]) -> None:
    assert median_interval(list(range(count, 0, -1))) == pytest.approx(ends, nan_ok=True)


def test_noise_is_no_move() -> None:
    before = {"a": [10, 11, 12, 13, 14, 15], "b": [10, 11, 12, 13, 14, 15], "few": [1, 1]}
    after = {
        "a": [14, 15, 16, 17, 18, 19],
        "b": [16, 17, 18, 19, 20, 21],
        "few": [9, 9],
        "new": [1],
    }
    (move,) = find_moves(before, after)
    assert (move.name, move.before, move.after) == ("b", 12.5, 18.5)


def test_benchmarks_that_have_another_name_now_are_left_out(report: Path) -> None:
    new = json.loads((report / "report.json").read_text())
    old = json.loads((report / "report.json").read_text())
    old["records"]["matrix"] = old["records"].pop("connectivity")
    (text,) = moved(old, new)
    others = len(samples(new)) - len(new["records"]["connectivity"]["cases"][0]["samples_ms"])
    assert text.startswith(f"0 of {others} ") and "no benchmark has that name now: matrix." in text


def test_the_newest_version_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1", "2", "10"):
        (tmp_path / "dim" / version).mkdir(parents=True)
    monkeypatch.setattr("benchmarks.suite.measure", lambda name, options, line: vars(options))
    options = argparse.Namespace(
        repository=tmp_path, url=None, only=["precision"], quick=False, output=tmp_path
    )
    records, _ = measure_all(options)
    assert records["precision"]["weights"] == tmp_path / "dim/10/weights.safetensors"


def test_an_older_report_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"benchmark": "latency"}')
    assert main(["report", "--against", str(old)]) == 2
    assert "old.json: not a report.json" in capsys.readouterr().err
