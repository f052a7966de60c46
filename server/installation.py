"""Where tritonserver is on this machine, and what it needs to run.

NVIDIA's container has `tritonserver` on PATH, complete. The `nvidia-pytriton` wheel carries the
same program with the Python backend in parts, which are put together here.
"""

import ctypes.util
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path


class InstallationError(RuntimeError):
    """No tritonserver that can run on this machine; the message says what to install."""


@dataclass(frozen=True)
class Installation:
    """The program, with the flags and environment variables that it needs here."""

    executable: Path
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def find_tritonserver(backends: Path) -> Installation:
    """Find tritonserver on PATH, else in the nvidia-pytriton wheel.

    Parameters
    ----------
    backends : Path
        Empty folder of the caller's. The wheel's Python backend is assembled in it, and it must
        exist for as long as the server runs.

    Raises
    ------
    InstallationError
        Neither is there, or the wheel lacks something for the running Python.
    """
    on_path = shutil.which("tritonserver")
    if on_path:
        return Installation(Path(on_path))
    # find_spec, because importing pytriton would load far more than this needs.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise InstallationError(
            "no tritonserver on PATH and no nvidia-pytriton in this Python: "
            "pip install -e '.[server]' (Python 3.10 to 3.12), sh setup.sh -e '.[server]' (newer), "
            "or run inside NVIDIA's tritonserver container"
        )
    return _from_wheel(Path(spec.origin).parent, backends)


def _from_wheel(pytriton: Path, backends: Path) -> Installation:
    triton = pytriton / "tritonserver"
    _assemble_python_backend(triton, backends / "python")
    libraries = pytriton.parent / "nvidia_pytriton.libs"
    environment = {
        "LD_LIBRARY_PATH": _prepend("LD_LIBRARY_PATH", libraries, *libpython_folders()),
        # The backend embeds Python, ignores PYTHONPATH and PYTHONHOME, and takes its packages
        # from the environment of the first python3 on PATH: let that be this one.
        "PATH": _prepend("PATH", Path(sys.executable).parent),
    }
    _, minor = _python_version().split(".")
    if any(libraries.glob(f"libpython3-*.{minor}.so.1.0")):
        # The stub for Python 3.13 brings a libpython that does not fit Debian's standard library.
        environment["LD_PRELOAD"] = _prepend("LD_PRELOAD", Path(_libpython()))
    return Installation(
        triton / "bin" / "tritonserver", (f"--backend-directory={backends}",), environment
    )


def _assemble_python_backend(triton: Path, folder: Path) -> None:
    """Link the Python backend and the stub for the running Python into one folder."""
    version = _python_version()
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        versions = sorted(path.name for path in stub.parent.parent.iterdir())
        raise InstallationError(
            f"nvidia-pytriton has no Python backend for Python {version}: "
            f"it has {', '.join(versions)}; sh setup.sh -e '.[server]' makes a .venv of one of them"
        )
    folder.mkdir()
    for part in (*(triton / "backends" / "python").iterdir(), stub):
        if part.name != "__pycache__":
            (folder / part.name).symlink_to(part)


def libpython_folders() -> list[Path]:
    """Folders to search for the libpython that the backend needs; none where the system's will do.

    Raises
    ------
    InstallationError
        It is not installed. Debian's python3 does without it.
    """
    name = _libpython()
    folders = [Path(sysconfig.get_config_var("LIBDIR")), Path(sys.prefix) / "lib"]
    found = [folder for folder in folders if (folder / name).exists()]
    if found or ctypes.util.find_library(f"python{_python_version()}"):
        return found
    raise InstallationError(
        f"{name} is not installed, and Triton's Python backend needs it: "
        f"sudo apt-get install libpython{_python_version()}"
    )


def _libpython() -> str:
    return f"libpython{_python_version()}.so.1.0"


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _prepend(variable: str, *folders: Path) -> str:
    inherited = os.environ.get(variable)
    return os.pathsep.join([*map(str, folders), *([inherited] if inherited else [])])
