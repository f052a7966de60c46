"""The GPU's benchmark: measured where there is a GPU, and refused in words where there is none."""

import ctypes
import importlib.util
import itertools
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.__main__ import main
from benchmarks.engine import RUNS, WARMUP, Cuda, after_warmup, example
from benchmarks.engine import main as engine_main
from benchmarks.gpu import (
    AS_GRAPH,
    PEERS,
    TENSORRT,
    add_engine,
    layer_rows,
    measure,
    notes,
    peer_rows,
    run_tensorrt,
)
from export.engine import find_gpu
from export.errors import ExportError
from export.parity import read_pictures

ROOT = Path(__file__).parents[2]
WITH_GPU = torch.cuda.is_available()
RECORD = {
    "torch": "2.0",
    "matrix_rate": 100e12,
    "flops": {"1x64x64": 1e12},
    "ms": {"PyTorch FP32": {"1x64x64": [40.0] * 30}, TENSORRT: {"1x64x64": [20.0] * 30}},
    "skipped": {"torch.compile FP16": "no compiler"},
    "engine": {"version": "8.6.0", "build_s": 60.0, "timing_cache": False},
    "complaints": [],
    "layers": ["1x64x64", {"conv1": 1.0, "conv2": 3.0}],
}


@pytest.mark.skipif(not WITH_GPU, reason="PyTorch finds no GPU here")
def test_every_way_is_measured(weights: Path, data: Path, tmp_path: Path) -> None:
    code = main(["gpu", str(weights), "--data", str(data), "--quick", "-o", str(tmp_path)])
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert code == bool(record.get("complaints"))
    for name in (*PEERS, TENSORRT):
        assert record["ms"][name] or any(what.startswith(name) for what in record["skipped"])
    assert all(min(ms) > 0 for shapes in record["ms"].values() for ms in shapes.values())
    if importlib.util.find_spec("tensorrt"):
        assert record["ms"][TENSORRT]["1x64x64"]
        # What FP16 costs a drawn network on one small picture is about its tolerance.
        assert record["parity"]["mean_difference"] < 5e-3


def test_without_a_gpu_one_line_says_so(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    assert main(["gpu", str(weights), "-o", str(tmp_path / "new")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no NVIDIA GPU" in line
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("traced_once")
def test_what_keeps_the_engine_from_running_is_passed_on(
    oracle_network: Callable, weights: Path, data: Path, tmp_path: Path
) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU: the engine would run")
    options = Namespace(weights=weights, tensorrt_python="/no/such/python", output=tmp_path)
    work = (options, oracle_network(3), list(read_pictures(data)), [(1, 64, 64)])
    with pytest.raises(ExportError, match="--tensorrt-python /no/such/python: no such program"):
        run_tensorrt(*work)
    options.tensorrt_python = sys.executable
    with pytest.raises(ExportError, match=r"^--target tensorrt: No module named|^no NVIDIA GPU"):
        run_tensorrt(*work)
    crashes = tmp_path / "crashes"
    crashes.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashes.chmod(0o755)
    options.tensorrt_python = str(crashes)
    with pytest.raises(ExportError, match="crashes ended with code -11"):
        run_tensorrt(*work)


@pytest.mark.usefixtures("traced_once")
def test_what_tensorrts_python_measured_before_it_failed_is_kept(
    oracle_network: Callable, weights: Path, data: Path, tmp_path: Path
) -> None:
    """A program in its place, which ends as one whose GPU fails."""
    python = tmp_path / "python"
    python.write_text(f"""#!{sys.executable}
import json, sys
from pathlib import Path

words = sys.argv[1:]
assert words[:2] == ["-m", "benchmarks.engine"] and Path(words[2]).stat().st_size
folder = Path(words[words.index("-o") + 1])
folder.mkdir(parents=True)
engine = {{"version": "8.6.0", "build_s": 60.0, "timing_cache": False}}
found = {{"1x64x64": {{"ms": [2.0, 3.0]}}}}
failed = {{"1x96x96": "out of memory"}}
record = {{"engine": engine, "shapes": found, "failed": failed}}
(folder / "engine.json").write_text(json.dumps(record))
sys.exit("benchmarks.engine: cudaStreamSynchronize failed with error 700")
""")
    python.chmod(0o755)
    options = Namespace(weights=weights, tensorrt_python=str(python), output=tmp_path / "out")
    shapes = [(1, 64, 64), (1, 96, 96)]
    found = run_tensorrt(options, oracle_network(3), list(read_pictures(data)), shapes)
    result = {"ms": {TENSORRT: {}, AS_GRAPH: {}}, "skipped": {}}
    add_engine(result, found)
    assert result["ms"] == {TENSORRT: {"1x64x64": [2.0, 3.0]}, AS_GRAPH: {}}
    assert result["skipped"] == {
        "TensorRT FP16, 1x96x96": "out of memory",
        "TensorRT FP16, what follows": "cudaStreamSynchronize failed with error 700",
    }
    assert result["complaints"] == ["not compared, for want of corner"] and result["failed"]


def has_gpu() -> bool:
    try:
        return bool(find_gpu())
    except ExportError:
        return False


def test_why_pytorchs_exporter_failed_is_told(
    weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so one error below: here it asks a GPU that is not there."""
    if WITH_GPU:
        pytest.skip("this machine has a GPU: the exporter would not fail")
    monkeypatch.setattr("benchmarks.gpu.find_gpu", lambda: None)
    monkeypatch.setattr("benchmarks.gpu.matrix_rate", lambda *_: 1.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: None)
    options = Namespace(
        weights=weights, data=data, quick=True, tensorrt_python=sys.executable, output=tmp_path
    )
    (reason,) = next(measure(options))["skipped"].values()
    assert "NVIDIA" in reason or "CUDA" in reason, reason


def test_what_was_measured_is_written_before_the_rest_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(_: Namespace) -> Iterator[dict]:
        yield RECORD | {"unfinished": True}
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.gpu.measure", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        main(["gpu", "none.pth", "-o", str(tmp_path)])
    assert json.loads((tmp_path / "gpu.json").read_text())["ms"] == RECORD["ms"]
    text = (tmp_path / "gpu.md").read_text()
    assert "TensorRT FP16" in text and "Cut off" in text


def test_a_capture_that_fails_is_ended() -> None:
    """CUDA answers 901 then: what was captured is invalid."""
    calls = []

    class Library:
        def __getattr__(self, name: str) -> Callable[..., int]:
            return lambda *_: calls.append(name) or (901 if name == "cudaStreamEndCapture" else 0)

    cuda = Cuda(Library())
    with pytest.raises(ExportError, match="cudaStreamEndCapture failed with error 901"):
        cuda.as_graph(lambda: None, ctypes.c_void_p())
    assert calls == ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGetLastError"]

    def refuse() -> None:
        raise ExportError("the engine refuses to start")

    calls.clear()
    with pytest.raises(ExportError, match="refuses to start"):
        cuda.as_graph(refuse, ctypes.c_void_p())
    assert calls == ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGetLastError"]


@pytest.mark.parametrize(("seconds", "at_least"), [(0, WARMUP), (0.1, WARMUP + 1)])
def test_what_warms_up_does_not_count(
    seconds: float, at_least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.engine.WARMUP_SECONDS", seconds)
    numbers = itertools.count()
    found = after_warmup(lambda: float(next(numbers)))
    assert len(found) == RUNS and found[0] >= at_least
    assert found[0] == at_least or seconds


def test_the_engines_side_runs_on_python_3_9() -> None:
    vermin = [Path(sys.executable).with_name("vermin"), "-t=3.9-", "--no-tips"]
    subprocess.run([*vermin, "benchmarks/engine.py"], cwd=ROOT, check=True, capture_output=True)


def test_a_missing_graph_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert engine_main([str(tmp_path / "none.onnx"), "-o", str(tmp_path)]) == 1
    assert "none.onnx" in capsys.readouterr().err


def test_every_shape_gets_the_same_pictures_each_time() -> None:
    (image, trimap), again = example((2, 50, 70)), example((2, 50, 70))
    assert image.shape == (2, 50, 70, 3) and trimap.shape == (2, 50, 70, 1)
    assert (trimap == 128).mean() == pytest.approx(1 / 3, abs=0.02)
    assert all(np.array_equal(a, b) for a, b in zip((image, trimap), again, strict=True))


def test_shares_and_ratios_follow_from_the_times() -> None:
    from benchmarks.plots import plot  # Matplotlib, which other workers need not load

    slow, fast = peer_rows(RECORD)
    assert list(slow.values())[2:] == ["1.00", "1.00", "40.00", "40.00", "25%"]
    assert list(fast.values())[2:] == ["2.00", "2.00", "20.00", "20.00", "50%"]
    assert [row["share"] for row in layer_rows(RECORD)] == ["75.0%", "25.0%"]
    without = peer_rows(RECORD | {"ms": {"PyTorch FP32": {}, TENSORRT: RECORD["ms"][TENSORRT]}})
    assert [row["times as fast"] for row in without] == ["–"]
    tuned = {"torch.compile FP16": {"1x64x64": [25.0] * 30}}
    *_, last = peer_rows(RECORD | {"ms": RECORD["ms"] | tuned})
    assert last["way"] == "torch.compile FP16" and last["as PyTorch's best"] == "1.00"
    (drawing,) = plot(RECORD | {"benchmark": "gpu", "ms": RECORD["ms"] | {AS_GRAPH: {}}})
    assert "TFLOP/s; dashed: best matrix product" in drawing and AS_GRAPH not in drawing
    text = "\n".join(notes(RECORD))
    assert "100 TFLOP/s" in text and "Not run: torch.compile FP16: no compiler." in text
    assert "within the tolerance" in text
