"""The parity table of real exports and real servers, and whether it finds a difference."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from server.launcher import Server

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.parity import IN_BF16, IN_WINOGRAD, make_row
from benchmarks.peers import SkippedError
from export.parity import read_pictures
from matting.images import read_image


@pytest.mark.usefixtures("traced_once")
def test_exports_are_equal_and_a_server_with_other_weights_is_found_out(
    weights: Path, data: Path, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture
) -> None:
    arguments = [str(weights), "--data", str(data), "--url", server.grpc_url]
    assert main(["parity", *arguments, "-o", str(tmp_path)]) == 1
    record = json.loads((tmp_path / "parity.json").read_text())
    rows = {row["name"]: row for row in record["rows"]}
    ran = {name for name, row in rows.items() if not row["verdict"].startswith("not run")}
    assert ran >= {"ONNX FP32, ONNX Runtime", "ONNX FP16, ONNX Runtime", "served over gRPC"}
    for name in ran - {"served over gRPC", IN_BF16, IN_WINOGRAD}:
        # What FP16 costs a drawn network on one small picture is about its tolerance.
        assert rows[name]["verdict"] == "equal" or "FP16" in name
        assert rows[name]["mean_difference"] < 5e-3 and rows[name]["largest_difference"] < 0.5
    # In bf16 a metric that is better is no fault; these weights may match the picture better.
    assert "alpha differs by" in rows["served over gRPC"]["verdict"]
    assert rows["served over gRPC"]["verdict"] in capsys.readouterr().out

    table = (tmp_path / "parity.md").read_text()
    assert f"{rows['ONNX FP16, ONNX Runtime']['exported']['SAD']:.4f}" in table
    with (tmp_path / "parity.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["form"] for line in lines} == ran
    assert {line["picture"] for line in lines} == {"corner"}
    sheet = read_image(tmp_path / "worst.png")
    assert sheet.shape[0] > 192 * len(ran)


def test_a_row_that_cannot_run_says_why(data: Path) -> None:
    def start() -> None:
        raise SkippedError("no GPU here")

    row = make_row("TensorRT", "fp16", start, list(read_pictures(data)), [])
    assert row.verdict == "not run: no GPU here"


def test_the_verdict_names_what_differs(data: Path) -> None:
    pictures = list(read_pictures(data))
    truth = pictures[0].alpha
    wrong = cv2.add(truth, 10)

    def answer(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        return wrong[np.newaxis, ..., np.newaxis]

    row = make_row("wrong", "fp32", lambda: answer, pictures, [truth])
    assert row.parity.comparisons[0].largest_difference == pytest.approx(10 / 255)
    for metric in ("SAD", "MSE", "alpha differs by"):
        assert metric in row.verdict
    np.testing.assert_array_equal(row.alphas[0], wrong)


def test_an_answer_that_contradicts_the_trimap_is_a_failure_and_not_the_end(data: Path) -> None:
    pictures = list(read_pictures(data))
    row = make_row(
        "wrong", "fp16", lambda: lambda _, trimap: trimap * 0, pictures, [pictures[0].alpha]
    )
    assert row.is_wrong and row.verdict.startswith("failed: corner: the prediction is not 255 in")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing.pth"], "nothing.pth: no such file"),
        (["{weights}", "--data", "nowhere"], "nowhere: no such folder"),
        (["{weights}", "--url", "127.0.0.1:1"], "no server at 127.0.0.1:1"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], complaint: str, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    code = main(["parity", *(word.format(weights=weights) for word in arguments), "--quick"])
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert complaint in error
    assert error.count("\n") == 1
