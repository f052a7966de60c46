"""Files are whole or not there, whoever writes them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from matting.files import check_folder, whole, write_whole


def test_a_replaced_file_hands_on_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o640)
    write_whole(path, b"after")
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failure_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), whole(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_at_once_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def make_and_stop(folder: Path, mode: int) -> None:
        make(folder, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", make_and_stop)
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_interruption_at_the_end_is_one_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(call: Callable[..., None]) -> None:
        def call_and_stop(*args: object, **options: object) -> None:
            call(*args, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, call.__name__, call_and_stop)

    file = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt), whole(file) as partial:
        partial.write_text("content")
        interrupt(os.close)
        interrupt(os.rmdir)
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_followed_and_its_name_says_the_format(tmp_path: Path) -> None:
    link, file = tmp_path / "link.png", tmp_path / "elsewhere" / "file"
    file.parent.mkdir()
    link.symlink_to(file)
    with whole(link, follow_symlinks=True) as partial:
        assert partial.suffix == ".png"
        partial.write_text("picture")
    assert link.is_symlink()
    assert file.read_text() == "picture"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_that_is_not_followed_is_replaced(tmp_path: Path) -> None:
    link, file = tmp_path / "model.onnx", tmp_path / "own.onnx"
    file.write_text("another's")
    link.symlink_to(file)
    write_whole(link, b"graph")
    assert not link.is_symlink()
    assert (link.read_text(), file.read_text()) == ("graph", "another's")


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir(mode=0o750)
    with whole(folder) as partial:
        partial.mkdir()
        (partial / "1.png").write_text("picture")
        assert not list(folder.iterdir())
    assert [path.name for path in folder.iterdir()] == ["1.png"]
    assert folder.stat().st_mode & 0o777 == 0o750
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_tried(tmp_path: Path) -> None:
    check_folder(tmp_path)
    assert not list(tmp_path.iterdir())
    file = tmp_path / "file"
    file.touch()
    for folder, error in ((file, NotADirectoryError), (Path("/proc"), OSError)):
        with pytest.raises(error) as refusal:
            check_folder(folder)  # of /proc, `os.access` would tell root that it can be written to
        assert refusal.value.filename == str(folder)


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Nor is a pipe, which takes no root to make."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="exists and is not a file"):
        write_whole(pipe, b"content")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
