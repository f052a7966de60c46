"""Files are written whole or not at all, with the mode bits of any new file."""

import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matting.images import check_sides, check_writable, read_gray, read_image, write_image


def test_mode_bits_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_colours_of_a_jpeg_do_not_mix_at_an_edge(tmp_path: Path) -> None:
    pixels = np.full((31, 31, 3), (0, 255, 0), np.uint8)
    pixels[:, 15:] = 220, 30, 90
    write_image(tmp_path / "a.jpg", pixels)
    assert abs(read_image(tmp_path / "a.jpg").astype(int) - pixels).max() < 10


def test_replacing_keeps_mode_bits_and_links(tmp_path: Path) -> None:
    target, link = tmp_path / "a.png", tmp_path / "link.png"
    write_image(target, np.zeros((2, 2), np.uint8))
    target.chmod(0o604)
    link.symlink_to(target)
    write_image(link, np.ones((3, 3), np.uint8))
    assert link.is_symlink()
    assert read_gray(target).shape == (3, 3)
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, random: np.random.Generator, refusal: Callable[..., str]
) -> None:
    path = tmp_path / "a.png"
    write_image(path, np.full((2, 2), 9, np.uint8))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        line = refusal(write_image, path, random.integers(0, 256, (99, 99), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in line
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (read_gray(path) == 9).all()


def test_a_picture_that_the_format_cannot_hold(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "use .png" in refusal(write_image, tmp_path / "a.jpg", np.zeros((1, 70_000), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "largest"), [(".jpg", 65500), (".webp", 16383)])
def test_the_longest_sides(
    tmp_path: Path, suffix: str, largest: int, refusal: Callable[..., str]
) -> None:
    path = tmp_path / f"a{suffix}"
    check_sides(path, 1, largest)
    write_image(path, np.zeros((1, largest), np.uint8))
    line = (
        f"1 x {largest + 1} pixels do not fit {suffix}, which takes {largest} on a side; use .png"
    )
    assert line in refusal(check_sides, path, largest + 1, 1)
    assert "use .png" in refusal(write_image, path, np.zeros((largest + 1, 1), np.uint8))
    check_sides(tmp_path / "a.png", largest + 1, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_rgba_needs_a_format_with_alpha(
    tmp_path: Path, suffix: str, refusal: Callable[..., str]
) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    assert ".png, .webp, .tif" in refusal(write_image, tmp_path / f"a{suffix}", pixels)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros(4, np.uint8)]
)
def test_arrays_that_are_no_image(
    tmp_path: Path, pixels: np.ndarray, refusal: Callable[..., str]
) -> None:
    assert "expected uint8" in refusal(write_image, tmp_path / "a.png", pixels)


@pytest.mark.parametrize("name", ["a", "a.gif", "a.jp2"])
def test_unknown_suffix(tmp_path: Path, name: str, refusal: Callable[..., str]) -> None:
    assert ".png, .jpg" in refusal(check_writable, tmp_path / name)
    assert ".png, .jpg" in refusal(write_image, tmp_path / name, np.zeros((2, 2), np.uint8))


def test_missing_folder(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "create it first" in refusal(check_writable, tmp_path / "no" / "a.png")


def test_not_a_file(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "a.png").mkdir()
    assert "is not a file" in refusal(check_writable, tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/null")
    assert "is not a file" in refusal(write_image, tmp_path / "b.png", np.zeros((2, 2), np.uint8))


def test_folder_that_is_not_writable(
    unprivileged_folder: Path, refusal: Callable[..., str]
) -> None:
    folder = unprivileged_folder / "locked"
    folder.mkdir(mode=0o500)
    assert "choose another folder" in refusal(check_writable, folder / "a.png")
    refusal(write_image, folder / "a.png", np.zeros((2, 2), np.uint8))


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.png")
    check_writable(str(tmp_path / "a.JPG"))
    assert list(tmp_path.iterdir()) == []
