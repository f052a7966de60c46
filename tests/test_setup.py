"""setup.sh finds a Python that the server can run with, or fetches one, or says what is missing."""

import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without a .venv."""
    for name in ("pyproject.toml", "setup.sh"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH without any Python."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cksum", "dirname", "expr", "grep", "rm", "sed", "sh"):
        (tools / name).symlink_to(shutil.which(name))
    return tools


@pytest.fixture
def newer_python(tools: Path) -> None:
    """A python3 on PATH that is newer than any that Triton's wheel has a backend for."""
    python = tools / "python3"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in -V) echo Python 3.14.0; exit ;; *version_info*) exit 1 ;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """What uv reads to learn which Pythons there are: one, whose program starts the running one.

    It notes in the file "asked" beside it what it was asked.
    """
    name = sysconfig._get_sysconfigdata_name()
    settings = importlib.import_module(name).__file__
    script = tmp_path / "script"
    script.write_text(
        f'#!/bin/sh\necho "$@" >>"$(dirname "$0")/asked"\nexec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    archive = tmp_path / "cpython-3.13.5-install_only_stripped.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(script, "python/bin/python3.13")
        file.add(settings, f"python/lib/python3.13/{name}.py")
    python = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": 3,
        "minor": 13,
        "patch": 5,
        "prerelease": "",
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "20250612",
    }
    downloads = tmp_path / "downloads.json"
    downloads.write_text(json.dumps({"cpython-3.13.5": python}))
    return downloads


def set_up(checkout: Path, tools: Path, downloads: str = "") -> subprocess.CompletedProcess:
    """Run setup.sh, to install one small package."""
    uv = {"UV_PYTHON_DOWNLOADS_JSON_URL": downloads, "UV_CACHE_DIR": str(checkout / "cache")}
    return subprocess.run(
        [tools / "sh", checkout / "setup.sh", "iniconfig"],
        env={**os.environ, **uv, "PATH": str(tools)},
        capture_output=True,
        text=True,
    )


def test_no_python(checkout: Path, tools: Path) -> None:
    result = set_up(checkout, tools)
    assert result.returncode == 1
    assert result.stderr == (
        "error: no Python 3.10 to 3.13 with venv here (python3 is missing); on Debian and Ubuntu: "
        "sudo apt-get install python3 python3-venv\n"
    )
    assert not (checkout / ".venv").exists()


@pytest.mark.usefixtures("newer_python")
def test_where_python_is_too_new_uv_fetches_another(
    checkout: Path, tools: Path, downloads: Path
) -> None:
    result = set_up(checkout, tools, str(downloads))
    assert result.returncode == 0, result.stderr
    environment = checkout / ".venv"
    (fetched,) = environment.glob("python/cpython-3.13.5-*/bin/python3.13")
    assert "-m venv --upgrade-deps .venv" in fetched.with_name("asked").read_text()
    assert list(environment.glob("lib/python*/site-packages/iniconfig"))
    assert not (environment / "uv").exists()


@pytest.mark.usefixtures("newer_python")
def test_where_python_is_too_new_and_no_other_can_be_fetched(checkout: Path, tools: Path) -> None:
    (checkout / ".venv").touch()
    result = set_up(checkout, tools)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "error: no Python 3.10 to 3.13 here (python3 is Python 3.14.0), and uv could not fetch one "
        "(see above): install one"
    )
