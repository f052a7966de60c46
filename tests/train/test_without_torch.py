"""The command lines where PyTorch is not installed: one line says how to get it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("module", "extra"), [("train", "train"), ("train.evaluate", "train"), ("export", "export")]
)
def test_what_to_install_is_said(module, extra, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: torch is not installed: pip install -e '.[{extra}]'\n"
