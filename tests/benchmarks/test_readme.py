"""Tables in the documentation are what the committed results say."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.readme import RESULTS, fill, names

ROOT = Path(__file__).parents[2]
RECORD = {
    "benchmark": "connectivity",
    "date": "2026-11-22T10:00:00+00:00",
    "command": "python -m benchmarks connectivity",
    "machine": {"cpu": "A Processor", "cores": 2, "gpu": None},
    "cases": [
        {
            "size": "480x640",
            "unknown": 0.25,
            "CONN": 1.5,
            "equal": True,
            "samples_ms": {"reference": [30, 20, 10], "matting": [4, 3, 50]},
        }
    ],
}


@pytest.mark.parametrize(
    "page", ["README.md", "docs/training.md", "docs/operations.md", "docs/client.md"]
)
def test_page_says_what_the_results_say(page: str) -> None:
    text = (ROOT / page).read_text()
    assert fill(text) == text, f"python -m benchmarks readme {page}"
    assert names(text)


def test_committed_results_name_no_path_of_this_machine() -> None:
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        assert record["command"].startswith("python -m benchmarks ")
        assert " /" not in record["command"]
        assert record["machine"]["cores"] and record["date"]


def test_a_stale_table_is_drawn_anew(tmp_path: Path) -> None:
    (tmp_path / "hairs.json").write_text(json.dumps(RECORD))
    text = "Before\n<!-- results: hairs -->\nold\n<!-- /results -->\nafter\n"
    filled = fill(text, tmp_path)
    assert filled.startswith("Before\n<!-- results: hairs -->\n|")
    assert filled.endswith("<!-- /results -->\nafter\n")
    assert "old" not in filled
    cells = [cell.strip() for cell in filled.splitlines()[4].split("|")[1:-1]]
    assert cells == ["480x640", "25.0%", "20.0", "4.0", "5.0", "yes"]
    assert "A Processor, 2 cores, 2026-11-22: `python -m benchmarks connectivity`" in filled
    assert fill(filled, tmp_path) == filled


def test_command_keeps_a_file_without_marks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "README.md"
    file.write_text("# Nothing measured\n")
    assert main(["readme", str(file)]) == 0
    assert file.read_text() == "# Nothing measured\n"
    assert "no marked tables" in capsys.readouterr().out
