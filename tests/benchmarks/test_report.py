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
from benchmarks.readme import RESULTS
from benchmarks.record import read_record
from benchmarks.report import measure_all, moved, samples


def test_the_page_has_every_table_and_loads_nothing(report: Path) -> None:
    page = (report / "report.html").read_text()
    markdown = (report / "report.md").read_text()
    for name in ("latency", "throughput", "connectivity"):
        assert f"<h2>{name.capitalize()}</h2>" in page
        assert (report / f"{name}.md").read_text() in markdown
    assert "src=" not in page.replace('src="data:', "")
    assert "<link" not in page and "<script" not in page
    assert "<code>python -m benchmarks latency " in page and "`" not in page
    drawings = [part.split("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
    assert len(drawings) == 4
    for drawing in drawings:
        assert ElementTree.fromstring(f"<svg{drawing}").findall(".//{*}path")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiles", "unknown share of the picture"),
        ("scaling", "servers, one core each"),
        ("throughput", ">0.00 s + 5.19 s per"),  # a line of any start would begin below zero
    ],
)
def test_results_with_a_law_are_drawn(name: str, words: str) -> None:
    from benchmarks.plots import plot  # Matplotlib, which other workers need not load

    (drawing,) = plot(read_record(RESULTS / f"{name}.json"))
    assert words in drawing


def test_a_report_has_not_moved_against_itself(report: Path) -> None:
    record = json.loads((report / "report.json").read_text())
    ((text, too_few, *_),) = moved(record, record)
    times = samples(record)
    assert times.keys() >= {
        "latency, 64x64, gRPC, end to end",
        "throughput, 64x64, concurrency 1, batch 2",
        "connectivity, 480x640, matting",
    }
    often = [values for values in times.values() if len(values) >= 6]
    assert text.startswith(f"0 of {len(often)} times moved")
    assert too_few.startswith(f"Of {len(times) - len(often)} more it cannot be said: repeated")


def test_what_moved_is_named(report: Path) -> None:
    new = json.loads((report / "report.json").read_text())
    old = json.loads((report / "report.json").read_text())
    # On a busy machine they may be too few, or scatter too much, to tell.
    for record, milliseconds in ((old, 1000), (new, 1)):
        (case,) = record["records"]["connectivity"]["cases"]
        case["samples_ms"]["matting"] = [milliseconds] * 6
    points, (row,) = moved(old, new)
    assert points[0].startswith("1 of ")
    assert row["what"] == "connectivity, 480x640, matting"
    assert row["change"] == "-99.9%"


@pytest.mark.parametrize(
    ("count", "ends"),
    [(5, (nan, nan)), (6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (100, (40, 61))],
)
def test_interval_of_the_median_is_the_tabled_one(count: int, ends: tuple[float, float]) -> None:
    assert median_interval(list(range(count, 0, -1))) == pytest.approx(ends, nan_ok=True)


def test_noise_is_no_move_and_may_hide_one() -> None:
    before = {"a": [10, 11, 12, 13, 14, 15], "b": [10, 11, 12, 13, 14, 15], "few": [1, 1]}
    after = {
        "a": [14, 15, 16, 17, 18, 19],
        "b": [16, 17, 18, 19, 20, 99],
        "few": [9, 9],
        "new": [1],
    }
    (move,), unclear = find_moves(before, after)
    assert (move.name, move.before, move.after) == ("b", 12.5, 18.5)
    assert unclear == ["a", "few"]


def test_what_moved_less_than_two_equal_requests_of_a_run_differ_is_noise() -> None:
    steady = [100 + i / 10 for i in range(10)]
    assert find_moves({"a": steady}, {"a": [1.04 * x for x in steady]}) == ([], [])
    (move,), _ = find_moves({"a": steady}, {"a": [0.9 * x for x in steady]})
    assert move.after < move.before


def test_the_largest_move_comes_first() -> None:
    steady = [100 + i / 10 for i in range(10)]
    after = {"little": [1.06 * x for x in steady], "much": [1.5 * x for x in steady]}
    moves, _ = find_moves(dict.fromkeys(after, steady), after)
    assert [move.name for move in moves] == ["much", "little"]


def test_other_circumstances_are_named(report: Path) -> None:
    new = json.loads((report / "report.json").read_text())
    old = json.loads((report / "report.json").read_text())
    old["machine"]["packages"]["torch"] = "1.0"
    old["machine"] |= {"tunables": "", "load": [11.0, 9.0, 9.0]}
    new["machine"] |= {"tunables": "a=1", "load": [0.5, 0.6, 0.7]}
    version = old["machine"]["packages"].pop("scipy")
    del old["records"]["throughput"]
    old["records"]["latency"] |= {"engine": "another", "weights": "0" * 64}
    points = "\n".join(moved(old, new)[0])
    assert f"torch was 1.0, is {new['machine']['packages']['torch']}" in points
    assert "latency's engine was another, is " in points
    assert f"latency's weights was {'0' * 64}, is " in points
    assert f"scipy was none, is {version}." in points
    assert "tunables was none, is a=1." in points
    assert points.count("Not under the same circumstances") == 5
    assert "Load averages over 1, 5 and 15 minutes were 11.0, 9.0, 9.0, and are 0.5, 0.6" in points


def test_benchmarks_that_have_another_name_now_are_left_out(report: Path) -> None:
    new = json.loads((report / "report.json").read_text())
    old = json.loads((report / "report.json").read_text())
    old["records"]["matrix"] = old["records"].pop("connectivity")
    text = "\n".join(moved(old, new)[0])
    del new["records"]["connectivity"]
    often = [values for values in samples(new).values() if len(values) >= 6]
    assert text.startswith(f"0 of {len(often)} ")
    assert "no benchmark has that name now: matrix." in text


def test_the_newest_version_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1", "2", "10"):
        (tmp_path / "dim" / version).mkdir(parents=True)
    monkeypatch.setattr("benchmarks.suite.measure", lambda name, options, line: vars(options))
    options = argparse.Namespace(
        repository=tmp_path, url=None, only=["precision"], quick=False, output=tmp_path
    )
    options.tensorrt_python = "python"
    records, _ = measure_all(options)
    assert records["precision"]["weights"] == tmp_path / "dim/10/weights.safetensors"


@pytest.mark.parametrize("content", [b'{"benchmark": "latency"}', b"\xff"])
def test_an_older_report_that_is_none_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(content)
    assert main(["report", "--against", str(old)]) == 2
    assert "old.json: not a report.json" in capsys.readouterr().err
