"""The command line of `client/matte.py`: its options, and which of them go together."""

import argparse
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import argcomplete
import numpy as np

from client.address import DEFAULT_URL
from client.connection import DEFAULT_TIMEOUT, PRIORITIES, TileOption
from client.job import OUTPUTS, Band
from client.pairs import is_many
from client.tiles import SMALLEST_TILE, STRIDE
from client.tls import Tls
from client.video import is_video, makes_video
from client.video_files import DEFAULT_FPS, MAX_FPS, MIN_FPS, VIDEO_SUFFIXES
from client.views import VIEWS
from matting.trimaps import MASK_BAND

JOBS_PER_SERVER = 4

EXAMPLES = """\
examples:
  one photo:
    python client/matte.py cat.jpg cat-trimap.png -o cat-alpha.png
  the cat with a transparent background, and the cat on a beach:
    python client/matte.py cat.jpg cat-trimap.png --cutout cat.png \\
        --background beach.jpg --composite cat-on-beach.jpg
  a folder and its subfolders, photos/a/cat.jpg with trimaps/a/cat.png, on two servers;
  run it again to continue where it stopped:
    python client/matte.py photos/ --trimaps trimaps/ -o mattes/ --cutout cutouts/ \\
        --url gpu1:8001 --url gpu2:8001 --failures failures.csv
  retry only those that failed:
    python client/matte.py failures.csv -o mattes/ --cutout cutouts/
  from a mask instead of a trimap, onto white:
    python client/matte.py cat.jpg cat-mask.png --mask --background '#ffffff' --composite white.jpg
  a quoted glob, or a CSV file with the columns image and trimap (and, optionally, output):
    python client/matte.py 'photos/**/*.jpg' --trimaps trimaps/ -o mattes/
    python client/matte.py pairs.csv -o mattes/
  a video with a trimap (or mask) for each frame, in the order of their names (9 before 10), to an
  alpha video; to get frames instead, give a folder:
    python client/matte.py clip.mp4 --trimaps clip-masks/ --mask -o clip-alpha.mkv
  a folder of frames to an alpha video:
    python client/matte.py frames/ --trimaps clip-masks/ --mask -o clip-alpha.mkv --fps 30

exit codes:
  0    all done
  1    some or all of many photos failed (without a server, or on a full disk, the rest are not
       tried), or standard output cannot be written
  2    nothing done: bad input or usage, and for one photo or a video also no server or a full disk;
       or --failures cannot be written
  130  stopped
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line, the program's own if None; a mistake ends the program with 2."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    try:
        _check_usage(parser, options)
    except OSError as error:  # a path that is too long, or may not be looked at
        parser.error(f"{error.filename}: {error.strerror}")
    return options


def outputs_of(options: argparse.Namespace) -> dict[str, Path]:
    """Return where each output that was asked for goes."""
    named = {kind: getattr(options, kind) for kind in OUTPUTS}
    return {kind: path for kind, path in named.items() if path is not None}


def band_of(options: argparse.Namespace) -> Band | None:
    """Return the unknown band for masks, or None if the trimaps are trimaps."""
    if not options.mask:
        return None
    given = {"erode": options.erode, "dilate": options.dilate}
    return Band(**{name: radius for name, radius in given.items() if radius is not None})


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which servers are asked, and how."""
    parser.add_argument(
        "--url",
        metavar="HOST:PORT",
        action="append",
        help=f"gRPC address of the server (default {DEFAULT_URL}); repeat it to use several",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive(float),
        default=DEFAULT_TIMEOUT,
        help="limit for each request (a photo or a tile), including waits for an unavailable or "
        "busy server (default %(default)g)",
    )
    tls = parser.add_argument_group("encryption", "PEM files; any of these options turns TLS on")
    tls.add_argument("--tls", action="store_true", help="trust the usual certificate authorities")
    tls.add_argument("--ca", metavar="PEM", type=Path, help="trust this certificate authority")
    tls.add_argument("--cert", metavar="PEM", type=Path, help="the client's own certificate")
    tls.add_argument("--key", metavar="PEM", type=Path, help="the key of --cert")


def check_connection(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program with 2 if options of `add_connection` do not go together."""
    if (options.cert is None) != (options.key is None):
        parser.error("--cert and --key must be given together")


def urls_of(options: argparse.Namespace) -> list[str]:
    """Return the addresses of the servers."""
    return options.url or [DEFAULT_URL]


def tls_of(options: argparse.Namespace) -> Tls | None:
    """Return how the connection is encrypted, or None if it is not."""
    if not (options.tls or options.ca or options.cert):
        return None
    return Tls(options.ca, options.cert, options.key)


def parse_background(text: str) -> Path | np.ndarray:
    """Return the path of a picture, or for a colour a picture of one pixel.

    Raises `argparse.ArgumentTypeError` for what is not a colour.
    """
    if not text.startswith("#"):
        return Path(text)
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise argparse.ArgumentTypeError(f"{text} is not a colour; write #rgb or #rrggbb")
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(1, 1, 3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage="python client/matte.py IMAGE TRIMAP -o ALPHA [options]",
        description="Make alpha mattes, cut-outs and composites of photos with a Triton server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="a photo; many photos: a folder, a quoted glob or a CSV file; or a video file (its "
        "sound is left out, and each frame is matted on its own, so soft edges flicker: "
        "docs/client.md)",
    )
    parser.add_argument(
        "trimap",
        metavar="TRIMAP",
        nargs="?",
        type=Path,
        help="same size as the photo; 0 is background, 255 foreground, 128 unknown (or see --mask)",
    )
    parser.add_argument(
        "--trimaps",
        metavar="FOLDER",
        type=Path,
        help="folder of the trimaps of many photos, or of a video's frames",
    )
    _add_outputs(parser)
    _add_trimaps(parser)
    _add_edges(parser)
    add_connection(parser)
    _add_run(parser)
    return parser


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    outputs = parser.add_argument_group(
        "outputs",
        "At least one is required: a file for one photo, a folder for many; for a video or a\n"
        "folder of frames, a lossless .mkv (FFV1) or a folder for frames. Cut-out and composite\n"
        "keep the photo's colour profile, EXIF, rights, captions (XMP) and dpi and, as .png and\n"
        ".tif, its 16 bits (a grey TIFF with an alpha channel is reduced to 8). A background is\n"
        "assumed to have the photo's colour profile. Alpha always has 8 bits, as in the server's\n"
        "answer.",
    )
    outputs.add_argument("-o", "--alpha", metavar="ALPHA", type=Path, help="the alpha matte, grey")
    outputs.add_argument(
        "--cutout",
        metavar="RGBA",
        type=Path,
        help="the photo without its background, .png, .webp or .tif",
    )
    outputs.add_argument(
        "--composite", metavar="OUT", type=Path, help="the photo on another background"
    )
    outputs.add_argument(
        "--background",
        metavar="IMAGE|COLOUR",
        type=parse_background,
        help="background of --composite: a picture of any size, or a colour such as '#ffffff'",
    )
    outputs.add_argument(
        "--premultiplied",
        action="store_true",
        help="multiply the colours of --cutout by alpha; only a .tif tells other programs so",
    )
    outputs.add_argument(
        "--fps",
        metavar="N",
        type=_rate,
        help=f"frame rate of a video made from a folder of frames (default {DEFAULT_FPS:g})",
    )


def _add_trimaps(parser: argparse.ArgumentParser) -> None:
    trimaps = parser.add_argument_group("trimaps")
    trimaps.add_argument(
        "--quantize",
        action="store_true",
        help="make near-black values of the trimap 0, near-white ones 255 and all others 128",
    )
    trimaps.add_argument(
        "--mask",
        action="store_true",
        help="TRIMAP, or each of --trimaps, is a mask, black and white or soft: make a trimap "
        "from it that is unknown along the object's edge",
    )
    for name, side in (("erode", "inside"), ("dilate", "outside")):
        trimaps.add_argument(
            f"--{name}",
            metavar="RADIUS",
            type=_radius,
            help=f"width of the unknown band {side} the mask's edge, in pixels or as a percentage "
            f"of the object's size, the square root of its area (default {MASK_BAND:.0%}%)",
        )


def _add_edges(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        metavar="auto|off|N",
        type=_tile,
        default="auto",
        help="N: send rectangles of at most N x N pixels that cover the unknown region; off: send "
        "the photo whole; auto, the default: send rectangles if they are less work or the photo "
        "is too large",
    )
    parser.add_argument(
        "--views",
        type=int,
        choices=VIEWS,
        default=1,
        help="better edges in 2 or 4 times the time: average the alphas of the photo and its "
        "mirror image (2), and of both upside down (4); default %(default)s",
    )
    parser.add_argument(
        "--knn",
        action="store_true",
        help="much better edges in little more time (with a server on a CPU): pixels of similar "
        "colour get similar alphas",
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="send photos of one megapixel or more at half their size, in half to three quarters "
        "of the time (with a server on a CPU), and find the edges at full size as --knn does",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shm",
        action="store_true",
        help="pass the pixels through shared memory to one server on this machine that was also "
        "started with --shm",
    )
    parser.add_argument(
        "--priority",
        choices=PRIORITIES,
        default="bulk",
        help="interactive requests overtake bulk ones in the server's queue (default %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=positive(int),
        help=f"photos or frames in progress at a time (default {JOBS_PER_SERVER} per server)",
    )
    parser.add_argument(
        "--failures",
        metavar="CSV",
        type=Path,
        help="write a list of the photos that failed; give it as IMAGE to try them again",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per photo on standard output"
    )


def positive(number: type[float]) -> Callable[[str], float]:
    """Return argparse's type for numbers of a type that are greater than 0."""

    def parse(text: str) -> float:
        value = number(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
        return value

    parse.__name__ = number.__name__  # argparse's "invalid float value" names it
    return parse


def _rate(text: str) -> float:
    with suppress(ValueError):
        if MIN_FPS <= float(text) <= MAX_FPS:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number from {MIN_FPS:g} to {MAX_FPS:g}")


def _tile(text: str) -> TileOption:
    if text in ("auto", "off"):
        return cast(TileOption, text)
    if text.isdecimal() and int(text) % STRIDE == 0 and int(text) >= SMALLEST_TILE:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text} is not auto, off, or a multiple of {STRIDE} from {SMALLEST_TILE}"
    )


def _radius(text: str) -> float:
    """Return pixels from 1, or a share below 1."""
    number = r"(\d+\.?\d*)"
    if share := re.fullmatch(number + "%", text):
        radius = float(share[1]) / 100
        if radius < 1:
            return radius
    elif (pixels := re.fullmatch(number, text)) and (float(text) == 0 or float(text) >= 1):
        return float(pixels[1])
    raise argparse.ArgumentTypeError(f"{text} is neither pixels, as 12, nor a percentage, as 5%")


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    outputs = outputs_of(options)
    if not outputs:
        parser.error("nothing to write: give -o, --cutout or --composite")
    if (options.composite is None) != (options.background is None):
        parser.error("--composite and --background must be given together")
    if options.premultiplied and options.cutout is None:
        parser.error("--premultiplied needs --cutout")
    if options.mask and options.quantize:
        parser.error("--quantize is for trimaps; leave it out with --mask")
    if (options.erode, options.dilate) != (None, None) and not options.mask:
        parser.error("--erode and --dilate need --mask")
    check_connection(parser, options)
    if options.shm and len(urls_of(options)) > 1:
        parser.error("--shm works with one server only, on this machine")
    _check_image(parser, options, outputs)


def _check_image(
    parser: argparse.ArgumentParser, options: argparse.Namespace, outputs: Mapping[str, Path]
) -> None:
    """End the program with 2 if an option is for other kinds of IMAGE."""
    if options.fps and not (Path(options.image).is_dir() and makes_video(outputs)):
        parser.error("--fps is only for a video made from a folder of frames")
    if is_video(options.image, outputs):
        if options.trimap is not None or options.trimaps is None:
            parser.error(f"{options.image} is a video: give its frames' trimaps with --trimaps")
        if options.failures:
            parser.error("--failures is for many photos: a video is written whole or not at all")
    elif is_many(options.image):
        if options.trimap is not None:
            parser.error(f"{options.image} holds many photos: give their trimaps with --trimaps")
        if makes_video(outputs):
            parser.error(f"a .mkv is made from a folder of frames, which {options.image} is not")
    elif options.trimap is None:
        parser.error(
            f"no TRIMAP for {options.image}, and it is not a folder, glob, CSV file or a video "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    elif options.trimaps or options.failures or options.jobs:
        parser.error("--trimaps, --failures and --jobs are only for many photos or a video")
