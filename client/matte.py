# PYTHON_ARGCOMPLETE_OK
"""Matte photos: send each with its trimap to a Triton server, and write the alpha matte.

Run it as a file, or use it as a library: ``from client.matte import Matte``.
"""

import argparse
import json
import logging
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from io import TextIOWrapper
from itertools import chain
from pathlib import Path

# While the rest is imported there is nothing to tidy up: an end without Python's traceback.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from client.arguments import JOBS_PER_SERVER, band_of, outputs_of, parse, tls_of, urls_of
    from client.connection import Matte
    from client.errors import AddressError, ServerError, TlsError
    from client.folder import Record, add_failure, matte_pairs, start_failures
    from client.job import Options, Pair, matte_pair
    from client.pairs import PairError, check_outputs, find_pairs, images_in, is_many
    from client.request import Request
    from client.video import is_video, list_trimaps, matte_video
    from client.video_files import DEFAULT_FPS
    from matting.files import check_folder
    from matting.images import ImageError, WriteError, read_photo
    from matting.signals import end_stopped, stop_as_with_ctrl_c
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    print(f"error: {error.name} is not installed: pip install -e '.[client]'", file=sys.stderr)
    sys.exit(2)

__all__ = ["Matte", "main"]

SUCCESS, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
FAILURES_SHOWN = 20
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be valid text
    options = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.ERROR if options.quiet else None)
    try:
        with Matte(
            urls_of(options),
            options.timeout,
            options.priority,
            tls_of(options),
            options.shm,
        ) as matte:
            if is_video(options.image, outputs_of(options)):
                return _run_video(matte, options)
            return (_run_many if is_many(options.image) else _run_one)(matte, options)
    except (AddressError, ImageError, PairError, ServerError, TlsError, WriteError) as error:
        return _fail(error, NOTHING_DONE)
    except BrokenPipeError:  # who reads our output has seen enough, as `head` has
        return SOME_FAILED
    except _OutputError as error:
        return _fail(f"standard output: {error}", SOME_FAILED)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", NOTHING_DONE)
    except KeyboardInterrupt:
        return _fail("stopped; all files written are complete", INTERRUPTED)


class _OutputError(Exception):
    """Standard output cannot be written, though the files may have been."""


def _run_one(matte: Matte, options: argparse.Namespace) -> int:
    pair = Pair(Path(options.image), options.trimap, outputs_of(options))
    started = time.monotonic()
    request = Request()
    with _failure_in_json(pair, request, options):
        check_outputs(_inputs([pair], options), pair.outputs.values())
        asked = matte_pair(pair, matte, _settings(options), request)
    if options.json:
        _print_json(Record(pair, "written", request=request))
    elif not options.quiet:
        if not asked:
            _say(f"{pair.trimap} has no unknown pixels: it is the alpha; no server was asked")
        written = ", ".join(map(str, pair.outputs.values()))
        seconds = f"{time.monotonic() - started:.2f} s"
        _say(f"wrote {written} in {seconds}{_turned_away(request.rejections)}")
    return SUCCESS


def _run_many(matte: Matte, options: argparse.Namespace) -> int:
    folders = outputs_of(options)
    pairs, problems = find_pairs(options.image, options.trimaps, folders)
    inputs = _inputs([*pairs, *(pair for pair, _ in problems)], options)
    outputs = (path for pair in pairs for path in pair.outputs.values())
    check_outputs(inputs, chain(outputs, [options.failures] if options.failures else []))
    settings = _settings(options)
    if options.failures:
        start_failures(options.failures)
    for folder in folders.values():
        _make_folder(folder)
    unpaired = [Record(pair, "failed", reason) for pair, reason in problems]
    tally, total = _Tally(), len(unpaired) + len(pairs)
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, unit="photo", miniters=0, disable=options.quiet or None) as progress,
        closing(matte_pairs(pairs, matte, settings, _jobs(options))) as matted,
    ):
        for record in chain(unpaired, matted):
            tally.add(record)
            if record.status == "failed" and options.failures:
                add_failure(options.failures, record, folders)
            if options.json:
                _print_json(record)
            if record.status == "skipped":  # it took no time, and says nothing about the rest's
                progress.total = total = total - 1
            progress.update(record.status != "skipped")
    _report(tally, options)
    return SOME_FAILED if tally.errors else SUCCESS


class _Tally:
    """What a run of many photos came to."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.known = 0
        self.outdated = 0
        self.rejections = 0
        self.errors: list[str] = []

    def add(self, record: Record) -> None:
        self.counts[record.status] += 1
        self.known += record.status == "written" and not record.has_unknown
        self.outdated += record.is_outdated
        self.rejections += record.request.rejections if record.request else 0
        if record.status == "failed":
            self.errors = [*self.errors, record.error][:FAILURES_SHOWN]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder)
    except OSError as error:
        raise PairError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _run_video(matte: Matte, options: argparse.Namespace) -> int:
    pair = Pair(Path(options.image), options.trimaps, outputs_of(options))
    request = Request()
    with _failure_in_json(pair, request, options):
        folders = [path for path in (pair.image, pair.trimap) if path.is_dir()]
        frames = chain.from_iterable(map(images_in, folders))
        check_outputs(chain(_inputs([pair], options), frames), pair.outputs.values())
        settings, fps = _settings(options), options.fps or DEFAULT_FPS
        trimaps = list_trimaps(pair, settings)
        matted = matte_video(pair, trimaps, matte, settings, _jobs(options), request, fps)
        with (
            logging_redirect_tqdm(),
            closing(matted) as written,
            tqdm(total=len(trimaps), unit="frame", disable=options.quiet or None) as progress,
        ):
            known = 0
            for has_unknown in written:
                known += not has_unknown
                progress.update()
    if options.json:
        _print_json(Record(pair, "written", request=request))
    elif not options.quiet:
        files = ", ".join(map(str, pair.outputs.values()))
        _say(f"wrote {files}, {len(trimaps)} frames{_turned_away(request.rejections)}")
    _say_known(known, options)
    return SUCCESS


def _report(tally: _Tally, options: argparse.Namespace) -> None:
    counts = tally.counts
    for error in tally.errors:
        _complain(f"failed: {error}")
    if counts["failed"] > len(tally.errors):
        where = f"see {options.failures}" if options.failures else "--failures CSV lists all"
        _complain(f"failed: {counts['failed'] - len(tally.errors)} more, {where}")
    if not (options.json or options.quiet):
        done = f"{counts['written']} written, {counts['skipped']} already there"
        _say(f"{done}, {counts['failed']} failed{_turned_away(tally.rejections)}")
        if tally.outdated:
            _say(
                f"{tally.outdated} of those already there are older than their photo or trimap; "
                "delete them to have them made again (--json names them)"
            )
    _say_known(tally.known, options)


def _say_known(count: int, options: argparse.Namespace) -> None:
    """Say how many trimaps had nothing unknown: masks given as trimaps come back as alphas."""
    # A mask knows all in a frame without the object.
    if count and not (options.mask or options.json or options.quiet):
        _say(f"trimaps without unknown pixels, used as alphas: {count} (if they are masks: --mask)")


def _turned_away(rejections: int) -> str:
    return f"; requests that a full server turned away: {rejections}" if rejections else ""


@contextmanager
def _failure_in_json(pair: Pair, request: Request, options: argparse.Namespace) -> Iterator[None]:
    """Say with --json, too, why there are no outputs."""
    try:
        yield
    except (ServerError, ImageError, PairError, OSError) as error:
        if options.json:
            with suppress(_OutputError, BrokenPipeError):
                _print_json(Record(pair, "failed", str(error), request))
        raise


def _print_json(record: Record) -> None:
    pair = record.pair
    outputs = {kind: str(path) for kind, path in pair.outputs.items()}
    fields: dict[str, str | int] = {
        "image": str(pair.image),
        "trimap": str(pair.trimap),
        **outputs,
        "status": record.status,
    }
    if record.request and record.request.is_asked:
        fields |= {"request": record.request.id, "rejections": record.request.rejections}
    if record.is_outdated:
        fields["outdated"] = True
    if record.error:
        fields["error"] = record.error
    _say(json.dumps(fields))


def _say(text: str) -> None:
    try:
        print(text, flush=True)  # now, so that what goes wrong is seen here
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        if isinstance(error, BrokenPipeError):
            raise
        raise _OutputError(error.strerror) from error


def _fail(error: object, code: int) -> int:
    _complain(f"error: {error}")
    return code


def _complain(text: str) -> None:
    """Print an error, control characters escaped: a file's name must not steer the terminal."""
    print(CONTROL.sub(lambda found: repr(found[0])[1:-1], text), file=sys.stderr)


def _jobs(options: argparse.Namespace) -> int:
    return options.jobs or JOBS_PER_SERVER * len(urls_of(options))


def _settings(options: argparse.Namespace) -> Options:
    background = options.background
    is_one_photo = not (is_many(options.image) or is_video(options.image, outputs_of(options)))
    return Options(
        background=read_photo(background).pixels if isinstance(background, Path) else background,
        premultiplied=options.premultiplied,
        quantize=options.quantize,
        mask=band_of(options),
        tile=options.tile,
        views=options.views,
        knn=options.knn,
        half=options.half,
        show_progress=is_one_photo and sys.stderr.isatty() and not options.quiet,
    )


def _inputs(pairs: Iterable[Pair], options: argparse.Namespace) -> Iterator[Path]:
    """Yield what is read."""
    yield Path(options.image)
    if isinstance(options.background, Path):
        yield options.background
    for pair in pairs:
        yield from (pair.image, pair.trimap)


if __name__ == "__main__":
    stop_as_with_ctrl_c()
    code = main()
    if code == INTERRUPTED:
        end_stopped(code)
    sys.exit(code)
