"""Files that are written whole or not at all, and their hashes."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, *, follow_symlinks: bool = False) -> Iterator[Path]:
    """Yield a temporary place for a file or folder, which moves to `path` at the block's end.

    It has the name of `path`, whose suffix may name a format. If `path` is a link, the link is
    replaced or, with `follow_symlinks`, its target. What is replaced hands on its mode bits. If the
    block fails, nothing is replaced and nothing is left.
    """
    target = Path(os.path.realpath(path)) if follow_symlinks else path
    folder = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        folder.mkdir(mode=0o700)  # in here, for a signal that comes at once
        partial = folder / path.name
        yield partial
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file's bytes to the disk, and only then in the place of what was there."""
    with whole(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def check_folder(folder: Path) -> None:
    """Raise the `OSError` of writing into a folder: before long work, not after."""
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
