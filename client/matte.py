"""Cut out what a photo shows: send it with its trimap to a Triton server, write the alpha matte.

Run it as a file, or use it as a library: ``from client.matte import Matte``.
"""

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path

try:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from client.address import DEFAULT_URL
    from client.connection import DEFAULT_TIMEOUT, Matte, TileOption
    from client.errors import AddressError, ServerError
    from client.folder import Record, matte_pairs, write_failures
    from client.job import OUTPUTS, Options, Pair, matte_pair
    from client.pairs import PairError, find_pairs, is_many
    from client.tiles import MARGIN, STRIDE
    from matting.images import ImageError, check_writable, read_image
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    print(f"error: {error.name} is not installed: pip install -e '.[client]'", file=sys.stderr)
    sys.exit(2)

__all__ = ["Matte", "main"]

SUCCESS, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
JOBS_PER_SERVER = 4
FAILURES_SHOWN = 20

EXAMPLES = """\
examples:
  one photo:
    python client/matte.py cat.jpg cat-trimap.png -o cat-alpha.png
  the cat with a transparent background, and the cat on a beach:
    python client/matte.py cat.jpg cat-trimap.png --cutout cat.png \\
        --background beach.jpg --composite cat-on-beach.jpg
  a folder and its subfolders, photos/a/cat.jpg with trimaps/a/cat.png, on two servers;
  run it again and it goes on where it stopped:
    python client/matte.py photos/ --trimaps trimaps/ -o mattes/ --cutout cutouts/ \\
        --url gpu1:8001 --url gpu2:8001 --failures failures.csv
  a quoted glob, or a CSV file with the columns image and trimap:
    python client/matte.py 'photos/**/*.jpg' --trimaps trimaps/ -o mattes/
    python client/matte.py pairs.csv -o mattes/

exit codes: 0 all done, 1 the server or some of many photos failed, 2 bad input or usage
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be valid text
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_usage(parser, options)
    logging.basicConfig(format="%(message)s", level=logging.ERROR if options.quiet else None)
    try:
        with Matte(options.url or DEFAULT_URL, options.timeout) as matte:
            return (_run_many if is_many(options.image) else _run_one)(matte, options)
    except ServerError as error:
        return _fail(error, FAILURE)
    except (AddressError, ImageError, PairError) as error:
        return _fail(error, BAD_INPUT)
    except OSError as error:
        return _fail(f"{error.filename}: cannot be written ({error.strerror})", BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("stopped; what is written is whole", INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage="python client/matte.py IMAGE TRIMAP -o ALPHA [options]",
        description="Alpha mattes, cut-outs and composites of photos, by a Triton server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="photo; or many: a folder, a quoted glob, a CSV file"
    )
    parser.add_argument(
        "trimap",
        metavar="TRIMAP",
        nargs="?",
        type=Path,
        help="same size as the photo; 0 is background, 255 foreground, 128 unknown",
    )
    parser.add_argument("--trimaps", metavar="FOLDER", type=Path, help="trimaps of many photos")

    outputs = parser.add_argument_group(
        "outputs", "at least one; a file for one photo, a folder for many"
    )
    outputs.add_argument("-o", "--alpha", metavar="ALPHA", type=Path, help="the alpha matte, grey")
    outputs.add_argument(
        "--cutout",
        metavar="RGBA",
        type=Path,
        help="the photo without its background, .png or .webp",
    )
    outputs.add_argument(
        "--composite", metavar="OUT", type=Path, help="the photo on another background"
    )
    outputs.add_argument(
        "--background", metavar="IMAGE", type=Path, help="background of --composite, of any size"
    )

    parser.add_argument(
        "--quantize",
        action="store_true",
        help="make the trimap's values 0, 128 and 255: near black, near white, all else unknown",
    )
    parser.add_argument(
        "--tile",
        metavar="auto|off|N",
        type=_tile,
        default="auto",
        help="send tiles of N x N pixels over the unknown region, or the photo whole (off); "
        "auto, the default: tiles where they are less work, or the photo is too large",
    )
    parser.add_argument(
        "--url",
        metavar="HOST:PORT",
        action="append",
        help=f"gRPC address of the server (default {DEFAULT_URL}); several share the work",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive(float),
        default=DEFAULT_TIMEOUT,
        help="per request (a photo or a tile), waiting for an unavailable or busy server included "
        "(default %(default)g)",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=_positive(int),
        help=f"photos under way at a time (default {JOBS_PER_SERVER} for each server)",
    )
    parser.add_argument(
        "--failures", metavar="CSV", type=Path, help="list the photos that failed, to try again"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per photo on standard output"
    )
    return parser


def _positive(number: type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = number(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not more than 0")
        return value

    parse.__name__ = number.__name__  # argparse's "invalid float value" names it
    return parse


def _tile(text: str) -> TileOption:
    if text in ("auto", "off"):
        return text
    if text.isdecimal() and int(text) % STRIDE == 0 and int(text) > 2 * MARGIN:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text} is not auto, off, or a multiple of {STRIDE} from {2 * MARGIN + STRIDE}"
    )


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not _outputs(options):
        parser.error("nothing to write: name -o, --cutout or --composite")
    if (options.composite is None) != (options.background is None):
        parser.error("--composite and --background need each other")
    if is_many(options.image):
        if options.trimap is not None:
            parser.error(f"{options.image} holds many photos: name their trimaps with --trimaps")
    elif options.trimap is None:
        parser.error(f"no TRIMAP for {options.image}, and it is no folder, glob or CSV file")
    elif options.trimaps or options.failures or options.jobs:
        parser.error("--trimaps, --failures and --jobs are for many photos")


def _outputs(options: argparse.Namespace) -> dict[str, Path]:
    named = {kind: getattr(options, kind) for kind in OUTPUTS}
    return {kind: path for kind, path in named.items() if path is not None}


def _run_one(matte: Matte, options: argparse.Namespace) -> int:
    pair = Pair(Path(options.image), options.trimap, _outputs(options))
    _check_names(pair, options.background)
    started = time.monotonic()
    asked = matte_pair(pair, matte, _settings(options))
    if options.json:
        _print_json(Record(pair, "written"))
    elif not options.quiet:
        if not asked:
            print(f"{pair.trimap} has no unknown pixels: it is the alpha, no server was asked")
        written = ", ".join(map(str, pair.outputs.values()))
        print(f"wrote {written} in {time.monotonic() - started:.2f} s")
    return SUCCESS


def _run_many(matte: Matte, options: argparse.Namespace) -> int:
    pairs, problems = find_pairs(options.image, options.trimaps, _outputs(options))
    settings = _settings(options)
    if options.failures:
        write_failures(options.failures, [])  # not only after hours
    for folder in _outputs(options).values():
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder / "alpha.png")
    jobs = options.jobs or JOBS_PER_SERVER * len(options.url or [DEFAULT_URL])
    unpaired = [Record(pair, "failed", reason) for pair, reason in problems]
    counts = Counter[str]()
    failed = []
    with (
        logging_redirect_tqdm(),
        tqdm(
            total=len(unpaired) + len(pairs), unit="photo", disable=options.quiet or None
        ) as progress,
        closing(matte_pairs(pairs, matte, settings, jobs)) as matted,
    ):
        for record in chain(unpaired, matted):
            counts[record.status] += 1
            if record.status == "failed":
                failed.append(record)
            if options.json:
                _print_json(record)
            progress.update()
    if options.failures:
        write_failures(options.failures, failed)
    _report(counts, failed, options)
    return FAILURE if failed else SUCCESS


def _report(counts: Counter[str], failed: list[Record], options: argparse.Namespace) -> None:
    for record in failed[:FAILURES_SHOWN]:
        print(f"failed: {record.error}", file=sys.stderr)
    if len(failed) > FAILURES_SHOWN:
        print(f"failed: {len(failed) - FAILURES_SHOWN} more, see --failures", file=sys.stderr)
    if not (options.json or options.quiet):
        done = f"{counts['written']} written, {counts['skipped']} were there"
        print(f"{done}, {counts['failed']} failed")


def _print_json(record: Record) -> None:
    pair = record.pair
    outputs = {kind: str(path) for kind, path in pair.outputs.items()}
    fields = {
        "image": str(pair.image),
        "trimap": str(pair.trimap),
        **outputs,
        "status": record.status,
    }
    if record.error:
        fields["error"] = record.error
    print(json.dumps(fields), flush=True)


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _settings(options: argparse.Namespace) -> Options:
    background = read_image(options.background) if options.background else None
    show_progress = sys.stderr.isatty() and not (options.quiet or is_many(options.image))
    return Options(background, options.quantize, options.tile, show_progress)


def _check_names(pair: Pair, background: Path | None) -> None:
    """Refuse to replace an input, or one output by another."""
    taken = {path.resolve() for path in (pair.image, pair.trimap, background) if path}
    for path in pair.outputs.values():
        if path.resolve() in taken:
            raise ImageError(f"{path}: is another file of this command; choose another name")
        taken.add(path.resolve())


if __name__ == "__main__":
    sys.exit(main())
