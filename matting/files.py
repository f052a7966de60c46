"""Files that are written whole or not at all, locks on their folders, and their hashes."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile


@contextmanager
def whole(path: Path, *, follow_symlinks: bool = False) -> Iterator[Path]:
    """Yield a temporary place for a file or folder, which moves to `path` at the block's end.

    It has the name of `path`, whose suffix may name a format. If `path` is a link, the link is
    replaced or, with `follow_symlinks`, its target. What is replaced hands on its mode bits. If the
    block fails, nothing is replaced and nothing is left.

    Raises
    ------
    FileExistsError
        There is a device, a pipe or a socket: to root, /dev/null could be replaced.
    """
    target = Path(os.path.realpath(path)) if follow_symlinks else path
    if target.exists() and not (target.is_symlink() or target.is_file() or target.is_dir()):
        raise FileExistsError(errno.EEXIST, "exists and is not a file", str(path))
    folder = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        folder.mkdir(mode=0o700)  # in here, for a signal that comes at once
        partial = folder / path.name
        yield partial
        if target.exists():
            shutil.copymode(target, partial)
        if partial.is_dir() and target.is_dir() and not target.is_symlink():
            target.rmdir()  # an empty one, in whose place Windows moves nothing
        partial.replace(target)
    finally:
        try:
            folder.rmdir()  # which no signal interrupts half-way
        except OSError:  # the block failed
            shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file's bytes to the disk, and only then in the place of what was there."""
    with whole(path) as partial:
        write_to_disk(partial, data)


def write_to_disk(path: Path, data: bytes) -> None:
    """Write a file's bytes, and return when a power cut can do them no harm any more."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def check_folder(folder: Path) -> None:
    """Raise the `OSError` of writing into a folder: before long work, not after.

    It is tried with an unnamed file: permission bits say nothing of read-only mounts, or to root.
    """
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:  # may name the file
        raise OSError(error.errno, error.strerror, str(folder)) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process holds a folder's lock, and hold it.

    It is on the folder itself, for which there is no file, and ends with the process, however that
    ends. Where folders cannot be locked, as on NFS and Windows, it does nothing.
    """
    with ExitStack() as stack:
        with suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
