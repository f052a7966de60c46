"""The demo as a newcomer runs it, with the real server and the default model."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matting.images import read_gray, read_image, read_trimap

ROOT = Path(__file__).parents[2]
OUTPUTS = ["alpha.png", "composite.png", "contact_sheet.png", "cutout.png"]


def demo(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "made" / "by it"
    result = demo("-o", folder)
    assert result.returncode == 0, result.stderr
    assert "tritonserver stopped" in result.stdout
    for name in OUTPUTS:
        assert name in result.stdout
    return folder


def test_writes_everything(outputs: Path) -> None:
    assert sorted(path.name for path in outputs.iterdir()) == OUTPUTS
    height, width = read_image(ROOT / "demo" / "photo.jpg").shape[:2]
    for name in OUTPUTS[:2]:
        assert read_image(outputs / name).shape == (height, width, 3)
    sheet = read_image(outputs / "contact_sheet.png")
    assert sheet.shape[0] > height and sheet.shape[1] > 5 * width


def test_alpha_keeps_what_is_known_and_mattes_the_rest(outputs: Path) -> None:
    alpha = read_gray(outputs / "alpha.png")
    trimap = read_trimap(ROOT / "demo" / "trimap.png")
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 255).all()
    unknown = alpha[trimap == 128]
    assert len(np.unique(unknown)) > 100, "hair is neither there nor not there"
    assert (unknown < 26).mean() > 0.1 and (unknown > 229).mean() > 0.1


def test_contact_sheet_shows_the_photograph(outputs: Path) -> None:
    photo = read_image(ROOT / "demo" / "photo.jpg")
    sheet = read_image(outputs / "contact_sheet.png")
    corner = sheet.shape[0] - 8 - photo.shape[0]
    np.testing.assert_array_equal(sheet[corner : corner + photo.shape[0], 8 : 8 + 512], photo)


def test_shipped_trimap_fits_the_photograph() -> None:
    trimap = read_trimap(ROOT / "demo" / "trimap.png")
    assert trimap.shape == read_image(ROOT / "demo" / "photo.jpg").shape[:2]
    assert set(np.unique(trimap)) == {0, 128, 255}


def test_kept_server_answers_the_printed_call_and_dies_by_the_printed_kill(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until_gone: Callable[[list[int]], bool],
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = demo("-o", tmp_path, "--keep")
    assert result.returncode == 0, result.stderr
    *_, call, _, stop = result.stdout.splitlines()
    pid = int(stop.removeprefix("  kill "))
    try:
        (tmp_path / "alpha.png").unlink()
        subprocess.run(call, shell=True, cwd=ROOT, check=True, capture_output=True)
        assert (tmp_path / "alpha.png").exists()
    finally:
        os.kill(pid, signal.SIGTERM)
    assert wait_until_gone([pid])


def test_a_closed_terminal_leaves_nothing_behind(
    tmp_path: Path, descendants: Callable[[int], list[int]], wait_until: Callable[..., None]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "-o", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        wait_until(lambda: descendants(process.pid))
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 130
    assert not list(temporary.iterdir())


def test_unwritable_output_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = demo("-o", tmp_path / "file" / "folder")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without a .venv."""
    for path in (ROOT / "demo", ROOT / "pyproject.toml", ROOT / "setup.sh"):
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def run_script(checkout: Path, *arguments: str, path: str) -> subprocess.CompletedProcess:
    sh = shutil.which("sh")
    command = [sh, checkout / "demo" / "run.sh", *arguments]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True)


def test_script_installs_nothing_twice_and_passes_its_arguments_on(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    sum_of = subprocess.run(
        ["cksum", "pyproject.toml"], cwd=checkout, capture_output=True, text=True
    )
    installed = f"{sum_of.stdout.strip()} -e .[client,server]\n"
    (checkout / ".venv" / "installed").write_text(installed)
    result = run_script(checkout, "--keep", "-o", "a b", path=os.environ["PATH"])
    assert (result.returncode, result.stdout) == (0, "-m demo --keep -o a b\n")
