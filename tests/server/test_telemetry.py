"""Nothing is reported to the makers of what is used. Of MNN see tests/export/test_mnn.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.launcher import launch


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which OpenVINO would keep an id before it reports anything."""
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # where these say so, it reports nothing
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_server_reports_nothing_to_openvinos_makers(home: Path, tiny_repository: Path) -> None:
    with launch(tiny_repository):
        assert not list(home.iterdir())


def test_an_export_reports_nothing_to_openvinos_makers(home: Path) -> None:
    pytest.importorskip("torch")
    program = "import export.runtime; print(export.runtime.openvino_precision())"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
    assert not list(home.iterdir())
