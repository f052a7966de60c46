"""The export job, run with the target that needs no GPU, and refused where it needs one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matting.images import read_gray, read_image, write_image

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "export/pictures"
WEIGHTS = ROOT / "model_repository/dim/1/weights.safetensors"


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the job into tmp_path/models."""

    def run(
        weights: Path = WEIGHTS, target: str = "cpu", *options: str | Path
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["sh", "deploy/export.sh", weights, tmp_path / "models", target, *options],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The version folder of tmp_path/models, holding the default model as it was exported."""
    shutil.copytree(WEIGHTS.parents[1], tmp_path / "models/dim")
    return tmp_path / "models/dim/1"


def test_a_model_that_fits_is_kept(export: Callable, version: Path) -> None:
    before = (version / "manifest.json").stat().st_mtime_ns
    done = export()
    assert (done.returncode, done.stderr) == (0, "")
    assert "as the manifest says" in done.stdout
    assert (version / "manifest.json").stat().st_mtime_ns == before


def test_a_spoiled_model_is_made_again(export: Callable, version: Path, tmp_path: Path) -> None:
    for kind in ("image", "trimap", "alpha"):  # a corner of one picture: parity is quick
        (file,) = (PICTURES / kind).glob("astronaut_on_cat.*")
        (tmp_path / kind).mkdir()
        read = read_image if kind == "image" else read_gray
        write_image(tmp_path / kind / "corner.png", read(file)[:96, :96])
    (tmp_path / "models.options").write_text(f"--data {tmp_path}\n")
    graph, manifest = version / "model.onnx", version / "manifest.json"
    graph.write_bytes(graph.read_bytes()[:1000])
    # One for "cpu" would be converted for MNN, too, and compared a second time.
    manifest.write_text(manifest.read_text().replace('"target": "cpu"', '"target": "onnxruntime"'))
    done = export(WEIGHTS, "onnxruntime", "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model.onnx is not the file that was exported" in done.stderr
    assert graph.stat().st_size > 1000
    again = export(WEIGHTS, "onnxruntime", "--data", tmp_path)
    assert "model.onnx as the manifest says" in again.stdout


@pytest.mark.parametrize(
    "fault",
    ["another target", "other weights", "other options", "an engine of another TensorRT"],
)
def test_a_stale_engine_is_refused_without_a_gpu(
    export: Callable, version: Path, fault: str, tmp_path: Path
) -> None:
    """Neither served nor replaced: the job fails, and what waits for it does not start."""
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU here: the engine would be built")
    entry = json.loads((version / "manifest.json").read_text())["model.onnx"]
    (version / "model.plan").write_bytes(b"of another machine")
    entry |= {"target": "tensorrt", "precision": "fp16", "files": {}}
    entry["engine"] = {"version": "8.6.1", "gpu": {"name": "Tesla T4", "compute_capability": "7.5"}}
    if fault == "another target":
        entry |= {"target": "cpu"}
    if fault == "other weights":
        entry |= {"weights": "0" * 64, "checkpoint": "0" * 64}
    (version / "manifest.json").write_text(json.dumps({"model.plan": entry}, indent=2))
    options = ["--precision", "fp32"] if fault == "other options" else []
    done = export(WEIGHTS, "tensorrt", *options)
    assert done.returncode == 1
    assert "export: --target tensorrt" in done.stderr
    of_the_engine = fault == "an engine of another TensorRT"
    assert ("was built by TensorRT 8.6.1" in done.stderr) == of_the_engine
    assert (version / "model.plan").read_bytes() == b"of another machine"
    # What a job leaves that ends half way is not taken for what the options of before made.
    assert (tmp_path / "models.options").read_text() == "unfinished\n"


def test_missing_weights_are_said(export: Callable, tmp_path: Path) -> None:
    done = export(tmp_path / "nosuch.safetensors")
    assert done.returncode == 2
    assert "nosuch.safetensors" in done.stderr
    assert not (tmp_path / "models").exists()
