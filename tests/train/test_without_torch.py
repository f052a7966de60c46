"""What the command lines load, and that one line says what to install where PyTorch is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "extra"), [("train", "train"), ("train.evaluate", "train"), ("export", "export")]
)
def test_what_to_install_is_said(module, extra, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: torch is not installed: pip install -e '.[{extra}]'\n"


@pytest.mark.parametrize(
    ("module", "library"), [("train", "pytorch_lightning"), ("train.data", "torch")]
)
def test_help_does_not_load_what_takes_seconds(module, library):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "train.arguments" in loaded
    assert library not in loaded
