"""Many pairs at a time, with several requests in flight.

Threads, not asyncio: reading, foreground colours and writing are OpenCV calls that block (and
release Python's lock), so with asyncio they would need a thread pool all the same.
"""

import csv
import errno
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.connection import Matte
from client.errors import ModelMissingError, ServerError, ServerUnavailableError
from client.in_order import in_order
from client.job import Options, Pair, matte_pair
from client.pairs import PairError
from client.request import Request
from matting.images import ImageError, WriteError


@dataclass(frozen=True)
class Record:
    """What became of one photo: ``written``, ``skipped`` (it was there) or ``failed``.

    `request` is what a server was to be asked for it; None if that was not tried. Where its trimap
    has nothing unknown, that is the alpha, and no server was asked. Outdated is what was there but
    is older than its photo or trimap.
    """

    pair: Pair
    status: Literal["written", "skipped", "failed"]
    error: str = ""
    request: Request | None = None
    has_unknown: bool = True
    is_outdated: bool = False


def matte_pairs(
    pairs: Iterable[Pair], matte: Matte, options: Options, jobs: int
) -> Generator[Record, None, None]:
    """Matte pairs with `jobs` of them under way at a time; records come in the order of the pairs.

    When no server is left, or it lacks the model, or the disk is full, the rest fails at once.
    """
    obstacles: list[str] = []

    def work(pair: Pair) -> Record:
        request = Request()
        try:
            if pair.is_done():
                return Record(pair, "skipped", is_outdated=pair.is_outdated())
            if obstacles:
                return Record(pair, "failed", f"{pair.image}: not tried: {obstacles[0]}")
            for path in pair.outputs.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            asked = matte_pair(pair, matte, options, request)
        except Exception as error:  # one bad file must not stop the rest, whatever is wrong with it
            if _is_gone(error, matte):
                obstacles.append("the server was gone")
            if _is_disk_full(error):
                obstacles.append("the disk was full")
            return Record(pair, "failed", _one_line(error, pair), request)
        return Record(pair, "written", request=request, has_unknown=asked)

    pool = ThreadPoolExecutor(jobs)
    # Waiting records are few, so that a million pairs are not a million futures, and enough that
    # one slow photo at the head does not idle the other threads.
    try:
        yield from in_order(pool, work, pairs, 16 * jobs)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def start_failures(path: Path) -> None:
    """Begin a list of failed pairs anew: a CSV file that `client.pairs.find_pairs` reads.

    Raises
    ------
    PairError
        It cannot be written there.
    """
    try:
        _write_row(path, "w", ("image", "trimap", "output", "error"))
    except OSError as error:
        raise PairError(f"{path}: cannot be written ({error.strerror})") from error


def add_failure(path: Path, record: Record, folders: Mapping[str, Path]) -> None:
    """Add a failed pair to such a list; it is in the file at once, however the run ends.

    Parameters
    ----------
    path : Path
    record : Record
    folders : dict of str to Path
        Those of the outputs. `output` is the place below them, the same when it is tried again.

    Raises
    ------
    WriteError
        The disk is full.
    """
    pair = record.pair
    kind, output = next(iter(pair.outputs.items()))
    inputs = (_seen_from(path.parent, file) for file in (pair.image, pair.trimap))
    try:
        _write_row(path, "a", (*inputs, _seen_from(folders[kind], output), record.error))
    except OSError as error:
        raise WriteError(path, error.strerror) from error


def _write_row(path: Path, mode: str, row: Sequence[str | Path]) -> None:
    with path.open(mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerow(row)


def _seen_from(folder: Path, path: Path) -> Path:
    """Return what, joined to the folder, is the path: relative if it lies inside."""
    folder, path = folder.absolute(), path.absolute()
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _is_gone(error: Exception, matte: Matte) -> bool:
    # A photo that brings a server down does not end the run if the server came back, nor does one
    # server without the model if another has it.
    return isinstance(error, ModelMissingError | ServerUnavailableError) and not matte.is_ready()


def _is_disk_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return error is not None and _is_disk_full(error.__cause__)


def _one_line(error: Exception, pair: Pair) -> str:
    if isinstance(error, ImageError):  # names its file
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{pair.image}: {error if isinstance(error, ServerError) else repr(error)}"
