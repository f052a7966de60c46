"""`python -m export check` names what does not fit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main
from export.export import Exported
from export.manifest import read_manifest
from matting.files import sha256


def test_check_names_what_to_rebuild(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    assert main(["check", str(models)]) == 0
    with (models / "dim/1/model.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["check", str(models)]) == 1
    assert "model.onnx is not the file that was exported" in capsys.readouterr().err
    (models / "dim/1/weights.safetensors").unlink()
    assert main(["check", str(models)]) == 1
    assert "weights.safetensors is missing: rebuild it" in capsys.readouterr().err
    (models / "dim/1/manifest.json").write_text('{"model.onnx": ')  # half copied
    assert main(["check", str(models)]) == 1
    assert "manifest.json is damaged: export the model again" in capsys.readouterr().err
    (models / "dim/1/manifest.json").unlink()
    assert main(["check", str(models)]) == 1
    assert "manifest.json is missing" in capsys.readouterr().err


def test_check_looks_at_every_version(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    for version in ("2", "10"):
        shutil.copytree(models / "dim/1", models / "dim" / version)
    assert main(["check", str(models)]) == 0
    folders = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert folders == [str(models / "dim" / version) for version in ("1", "2", "10")]
    (models / "dim/2/model.onnx").write_text("damaged")
    assert main(["check", str(models)]) == 1
    assert capsys.readouterr().err.startswith(f"check: {models}/dim/2: model.onnx is not the file")


def test_check_names_what_cannot_run_here(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A plan from another machine, beside a graph of other weights."""
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    version = models / "dim/1"
    (version / "model.plan").write_bytes(b"plan")
    gpu = {"name": "NVIDIA A9000", "compute_capability": "8.0", "driver": "1"}
    entry = {
        "target": "tensorrt",
        "precision": "fp16",
        "weights": "of others",
        "files": {"model.plan": sha256(version / "model.plan")},
        "engine": {"version": "10.1", "gpu": gpu},
    }
    manifest = version / "manifest.json"
    manifest.write_text(json.dumps(read_manifest(version) | {"model.plan": entry}))
    assert main(["check", str(models)]) == 1
    misfit, other_weights = capsys.readouterr().err.splitlines()
    assert "model.plan was built" in misfit
    assert misfit.endswith(
        "rebuild it: python -m export WEIGHTS --target tensorrt --precision fp16"
    )
    assert "model.onnx, model.plan were made from different weights" in other_weights


def test_check_needs_no_pytorch(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "export", "check", exported.artifact.parents[2]],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_cannot_be_looked_at_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "x" * 300]) == 2  # longer than a name can be
    error = capsys.readouterr().err
    assert error.startswith("check: ") and error.count("\n") == 1
