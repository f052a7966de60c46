"""Files that are whole or not there."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def beside(path: Path) -> Path:
    """Return a name in the same folder that no other file has, for what is not complete yet."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; the file takes its place at the end of the block.

    One that it replaces hands on its mode bits. Where the block fails nothing is replaced, and
    nothing left beside it.
    """
    partial = beside(path)
    try:
        yield partial
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file's bytes to the disk, and only then in the place of what was there."""
    with whole(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
