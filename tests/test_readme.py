"""The README's code blocks, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.launcher import launch

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<note>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(language: str) -> list:
    found = [
        m for m in BLOCK.finditer((ROOT / "README.md").read_text()) if m["language"] == language
    ]
    return [pytest.param(m["note"].strip(), m["code"], id=m["code"].split("\n")[0]) for m in found]


@pytest.fixture
def environment() -> dict[str, str]:
    """Without this process's virtual environment: the blocks enter the checkout's own."""
    return {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}


@pytest.mark.parametrize(("note", "code"), blocks("sh"))
def test_shell_block_runs(note: str, code: str, environment: dict[str, str]) -> None:
    if note:
        assert note.startswith("skip: "), f"unknown note {note!r}"
        pytest.skip(note.removeprefix("skip: "))
    if "venv" in code and not (ROOT / ".venv").is_dir():
        pytest.skip("needs the .venv that tests/run.sh makes")
    result = subprocess.run(
        ["sh", "-euc", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("note", "code"), blocks("python"))
def test_python_block_runs(note: str, code: str) -> None:
    assert note == "server"
    (ROOT / "out").mkdir(exist_ok=True)
    with launch(ROOT / "model_repository", grpc_port=8001):
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
    assert result.returncode == 0, result.stderr


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links and not [link for link in links if not (ROOT / link).exists()]
