"""Tables in the documentation are what the committed results say."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.readme import RESULTS, fill, names

ROOT = Path(__file__).parents[2]
RECORD = {
    "benchmark": "connectivity",
    "date": "2026-11-22T10:00:00+00:00",
    "command": "python -m benchmarks connectivity",
    "machine": {"cpu": "A Processor", "instructions": ["avx2"], "cores": 2, "gpu": None},
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
    "page",
    [
        "README.md",
        *(f"docs/{name}.md" for name in ("training", "operations", "client", "model_card")),
    ],
)
def test_page_says_what_the_results_say(page: str) -> None:
    text = (ROOT / page).read_text()
    assert fill(text) == text, f"python -m benchmarks readme {page}"
    assert names(text)


def test_model_card_says_what_every_image_got() -> None:
    """SAD of all images, where a method can matte all, and all metrics of those that each can."""
    with (RESULTS / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    methods = dict.fromkeys(row["method"] for row in rows)
    images = {method: {r["name"] for r in rows if r["method"] == method} for method in methods}
    common, every = set.intersection(*images.values()), set.union(*images.values())
    page = (ROOT / "docs/model_card.md").read_text()
    assert f"| method | SAD, {len(every)} images | SAD without the web |" in page
    assert every - common == {"aim_s3"}

    def mean(method: str, metric: str, chosen: set[str]) -> float:
        own = (r for r in rows if r["method"] == method and r["name"] in chosen)
        return float(np.mean([float(row[metric]) for row in own]))

    for method in methods:
        everywhere = f"{mean(method, 'SAD', every):.2f}" if images[method] == every else "–"
        sad, mse, grad, conn = (mean(method, m, common) for m in ("SAD", "MSE", "GRAD", "CONN"))
        row = f"| {method} | {everywhere} | {sad:.2f} | {mse:.4f} | {grad:.2f} | {conn:.2f} |"
        assert row in page
    stages = ("these weights", "stage 2", "stage 1")
    for chosen in (every, common):
        scores = [mean(stage, "SAD", chosen) for stage in stages]
        assert scores == sorted(scores)


def test_committed_results_name_no_path_of_this_machine() -> None:
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        assert record["command"].startswith("python -m benchmarks ")
        assert " /" not in record["command"]
        assert record["machine"]["cores"] and record["date"]


def test_a_stale_table_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.readme.RESULTS", tmp_path)
    (tmp_path / "hairs.json").write_text(json.dumps(RECORD))
    text = "Before\n<!-- results: hairs -->\nold\n<!-- /results -->\nafter\n"
    filled = fill(text)
    assert filled.startswith("Before\n<!-- results: hairs -->\n|")
    assert filled.endswith("<!-- /results -->\nafter\n")
    assert "old" not in filled
    cells = [cell.strip() for cell in filled.splitlines()[4].split("|")[1:-1]]
    assert cells == ["480x640", "25.0%", "20.0", "4.0", "5.0", "yes"]
    assert "A Processor, 2 cores, avx2, 2026-11-22: `python -m benchmarks connectivity`" in filled
    assert fill(filled) == filled


def test_command_keeps_a_file_without_marks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "README.md"
    file.write_text("# Nothing measured\n")
    assert main(["readme", str(file)]) == 0
    assert file.read_text() == "# Nothing measured\n"
    assert "no marked tables" in capsys.readouterr().out
