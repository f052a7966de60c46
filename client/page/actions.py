"""What the page does when one of its parts is used.

What is matted and written is the work of `client.job`, as on the command line: the downloads are
byte for byte what `client/matte.py` writes.
"""

import html
import os
import re
import shutil
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp, mkstemp
from typing import NamedTuple

import cv2
import gradio as gr
import numpy as np
from gradio.components.image_editor import EditorValue

from client.arguments import parse_background
from client.connection import Matte
from client.errors import (
    CancelledError,
    ModelMissingError,
    ServerError,
    ServerUnavailableError,
)
from client.job import (
    OUTPUTS,
    Band,
    Options,
    Pair,
    check_composite,
    make_outputs,
    read_pair,
    write_outputs,
)
from client.page.drawing import ShapeError, css_colour, draw_shapes, paint_trimap, shrink, tint
from client.page.runs import Runs
from matting.compositing import checkerboard, composite
from matting.foreground import estimate_foreground
from matting.images import ImageError, Photo, encode_image, read_photo, to_depth
from matting.trimaps import has_unknown

DEMO = Path(__file__).parents[2] / "demo"
LONGEST_SHOWN = 1024
"""Pixels on the longer side of a picture on the page; files keep their size."""
PATIENCE = 2.0
"""Seconds to wait for a server that is not there: somebody sits in front of the page."""

WAITING = "What is under way waits for it and goes on by itself; “Cancel” gives it up."

TRIMAP, COMPRESSED, MASK = "a trimap", "an alpha, or a trimap saved as JPEG", "a mask"

CONTROLS = {
    "quantize it (--quantize)": f"select “{COMPRESSED}”",
    "(--erode, --dilate)": "with the sliders",
    "all is unknown": "all of it is edges",
    "make a --cutout": "download the cut-out",
}
"""What the command line calls by its options and by the trimap's names, in the page's words."""


class Matted(NamedTuple):
    """A photo and what was found in it, kept so that a new background needs no new request.

    Attributes
    ----------
    file : str
        The photo's.
    photo : Photo
    foreground : ndarray, H x W x 3 RGB, as deep as the photo
    alpha : ndarray, H x W uint8
    downloads : TemporaryDirectory
        Their folder, and that of their views. It goes with the last of the photo's mattes: until
        the new files are there, those of the matte before can be downloaded.
    """

    file: str
    photo: Photo
    foreground: np.ndarray
    alpha: np.ndarray
    downloads: TemporaryDirectory


def in_words(function: Callable[..., object], folder: Path) -> Callable[..., object]:
    """Show a user's mistakes and a server's as the command line words them.

    What was cancelled changes nothing.
    """

    @wraps(function)
    def run(*arguments: object) -> object:
        try:
            return function(*arguments)
        except CancelledError:
            gr.Info("cancelled")
            return gr.skip()
        except (ImageError, ShapeError, ServerError, ArgumentTypeError) as error:
            words = html.escape(_words(error, folder))
            raise gr.Error(words, duration=None, print_exception=False) from error

    return run


def look_for_server(matte: Matte, folder: Path) -> str:
    """Say why no photo can be matted now; nothing if one can."""
    try:
        matte.wait_until_ready(PATIENCE)
    except ServerError as error:
        return f"{_words(error, folder)}. {WAITING}"
    return ""


def forget() -> tuple:
    """Empty all that belongs to a photo which is not there any more."""
    return None, "", *forget_results()


def forget_results() -> tuple:
    """Empty what was made of another photo: its painting, its matte, pictures and downloads."""
    return gr.ImageEditor(None, visible=False), *forget_matte()


def forget_matte() -> tuple:
    """Empty a matte, its pictures and downloads."""
    return None, None, None, None, *(_no_download() for _ in OUTPUTS)


def forget_failed(runs: Runs, run: int) -> tuple | dict:
    """Empty what a run that failed has not replaced; one that was cancelled changes nothing.

    To Gradio they are the same, and it may tell of a cancelled run twice.
    """
    return forget_matte() if runs.has_failed(run) else gr.skip()


def forget_composite() -> tuple:
    """Empty the slider and the composite, whose new background cannot be read."""
    return None, _no_download()


def choose_demo() -> tuple[str, str, str]:
    """Return the demo's photo, its trimap, and what that is."""
    return str(DEMO / "photo.jpg"), str(DEMO / "trimap.png"), TRIMAP


def show_photo(
    folder: Path,
    photo: str | None,
    trimap: str | None,
    kind: str,
    erode: float | None,
    dilate: float | None,
    shapes: str,
    painting: EditorValue | None = None,
) -> gr.ImageEditor:
    """Show a photo, tinted by its trimap, below what is painted on it."""
    if photo is None:
        return gr.skip()
    read, marked = _read(photo, trimap, kind, erode, dilate, shapes)
    view = tint(_shrunk(read.pixels), shrink(marked, LONGEST_SHOWN, cv2.INTER_NEAREST))
    value = EditorValue(
        background=_write_view(folder, view),
        layers=[_write_view(folder, layer) for layer in _layers(painting)],
        composite=None,
    )
    return gr.ImageEditor(value, visible=True)


def matte_upload(
    matte: Matte,
    folder: Path,
    photo: str | None,
    trimap: str | None,
    kind: str,
    erode: float | None,
    dilate: float | None,
    shapes: str,
    painting: EditorValue | None = None,
    better_edges: bool = True,
    run: int = 0,
    before: Matted | None = None,
    runs: Runs | None = None,
) -> Matted:
    """Matte a photo by its trimap or mask, with shapes and strokes over it.

    Raises ImageError or ShapeError for what a user can put right, ServerError for the rest.
    """
    with (runs or Runs()).begin(run) as request:
        if photo is None:
            raise ImageError("no photo yet: drop one first")
        request.check()
        read, marked = _read(photo, trimap, kind, erode, dilate, shapes)
        marked = paint_trimap(marked, _layers(painting))
        if not marked.any():
            raise ImageError(
                "all of the photo is background: paint its subject and the edges, or drop its "
                "trimap or mask"
            )
        if has_unknown(marked):
            matte.wait_until_ready(PATIENCE)
        else:
            gr.Warning(
                "nothing is marked as edges, so the cut-out follows the marks exactly: paint "
                f"edges, or, if the second file is a mask, select “{MASK}” and let its edges reach "
                "beyond 0",
                duration=None,
            )
        pixels = to_depth(read.pixels, np.uint8)
        alpha = matte.alpha(pixels, marked, knn=better_edges, request=request)
        foreground = estimate_foreground(read.pixels, alpha)
        downloads = before.downloads if before else TemporaryDirectory(dir=folder)
        return Matted(photo, read, foreground, alpha, downloads)


def show_result(
    folder: Path, matted: Matted | None, photo: str | None, colour: str, background: str | None
) -> tuple:
    """Return views of alpha and cut-out, both sides of the slider, and the three files.

    With a colour or background that cannot be read, say so; slider and composite are empty then.
    """
    if matted is None or matted.file != photo:  # which was changed meanwhile
        return (gr.skip(),) * (3 + len(OUTPUTS))
    kinds: Sequence[str] = OUTPUTS
    new = None
    try:
        new = _background(matted, colour, background)
    except (ImageError, ArgumentTypeError) as error:
        gr.Warning(html.escape(_words(error, folder)), duration=None)
        kinds = ["alpha", "cutout"]
    views, files = _write(matted, kinds, new)
    if new is None:
        return *views, None, *files, _no_download()
    return *views, *files


def show_background(
    matted: Matted | None,
    photo: str | None,
    colour: str,
    background: str | None,
    shown: str | None = None,
) -> tuple:
    """Return both sides of the slider and the composite's file."""
    check_kept(matted, shown)
    if matted is None or matted.file != photo:
        return gr.skip(), gr.skip()
    views, files = _write(matted, ["composite"], _background(matted, colour, background))
    return *views, *files


def check_kept(matted: Matted | None, shown: str | None) -> None:
    """Raise ImageError if there is nothing any more behind the alpha that the page shows."""
    if shown and matted is None:
        raise ImageError(
            "this result is not kept any more, because the page was out of reach for too long: "
            "press “Cut out” again"
        )


def _no_download() -> gr.DownloadButton:
    return gr.DownloadButton(value=None, interactive=False)


def _words(error: Exception, folder: Path) -> str:
    gone = error.__cause__
    if isinstance(gone, FileNotFoundError):
        name = Path(gone.filename).name
        return f"{name}: was dropped more than a day ago and has been deleted; drop it again"
    # Uploads lie in folders that mean nothing to who looks at the page.
    words = re.sub(rf"{re.escape(str(folder))}/(\w+/)?", "", str(error))
    for option, control in CONTROLS.items():
        words = words.replace(option, control)
    if isinstance(error, (ServerUnavailableError, ModelMissingError)):
        return f"no photo can be cut out now; tell whoever runs this page: {words}"
    return words


def _background(matted: Matted, colour: str, picture: str | None) -> np.ndarray:
    check_composite(["composite"], matted.photo.metadata.hdr, Path(matted.file))
    chosen = Path(picture) if picture else parse_background(_hex(colour))
    return read_photo(chosen).pixels if isinstance(chosen, Path) else chosen


def _write(
    matted: Matted, kinds: Sequence[str], background: np.ndarray | None
) -> tuple[list[str | tuple[str, str]], list[gr.DownloadButton]]:
    """Write some of `OUTPUTS`; return what is shown of each, and buttons that download them."""
    options = Options(background=background)
    made = make_outputs(
        kinds, matted.photo.pixels, matted.alpha, options, foreground=matted.foreground
    )
    name, place = Path(matted.file).stem, matted.downloads.name
    before = [file for kind in kinds for file in Path(place).glob(f"*/*-{kind}.png")]
    # Folders of their own: browsers keep what they once had from an address.
    outputs = {kind: Path(mkdtemp(dir=place)) / f"{name}-{kind}.png" for kind in kinds}
    write_outputs(outputs, made, matted.photo.metadata)
    views = [_write_views(outputs[kind].parent, kind, matted, made[kind]) for kind in kinds]
    for file in before:
        shutil.rmtree(file.parent)
    buttons = [gr.DownloadButton(value=outputs[kind], interactive=True) for kind in kinds]
    return views, buttons


def _write_views(
    folder: Path, kind: str, matted: Matted, output: np.ndarray
) -> str | tuple[str, str]:
    """Write what is shown of an output; return the file, or those of both sides of the slider."""
    if kind == "composite":
        photo, after = _shrunk(matted.photo.pixels), _shrunk(output)
        return _write_view(folder, photo), _write_view(folder, after)
    alpha = shrink(matted.alpha, LONGEST_SHOWN)
    if kind == "alpha":
        return _write_view(folder, alpha)
    foreground = _shrunk(matted.foreground)
    return _write_view(folder, composite(alpha, foreground, checkerboard(*alpha.shape)))


def _write_view(folder: Path, view: np.ndarray) -> str:
    """Write a view (uint8; grey, RGB or RGBA) as a new file; return that.

    Given the array, Gradio would write it anew over what others, with the same picture, look at.
    """
    descriptor, file = mkstemp("-view.png", dir=folder)
    os.close(descriptor)
    Path(file).write_bytes(encode_image(Path(file), view))
    return file


def _hex(colour: str) -> str:
    """Write a colour as #rrggbb, which the picker gives as rgba(r, g, b, 1) once it was used."""
    if colour.startswith("#"):
        return colour
    number = r"(\d+\.?\d*)"
    if picked := re.match(rf"rgba?\({number},\s*{number},\s*{number}", colour):
        levels = [round(float(level)) for level in picked.groups()]
        if max(levels) <= 255:
            return css_colour(levels)
    raise ArgumentTypeError(f"“{colour}” is not a colour; write #rgb or #rrggbb")


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    return shrink(to_depth(pixels, np.uint8), LONGEST_SHOWN)


def _read(
    photo: str,
    trimap: str | None,
    kind: str,
    erode: float | None,
    dilate: float | None,
    shapes: str,
) -> tuple[Photo, np.ndarray]:
    """Read a photo and its trimap, all background if there is none yet, with shapes over it."""
    if trimap is None:
        read = read_photo(photo)
        marked = np.zeros(read.pixels.shape[:2], np.uint8)
    else:
        # A slider's number is None while another one is typed.
        band = Band((erode or 0) / 100, (dilate or 0) / 100) if kind == MASK else None
        read, marked = read_pair(
            Pair(Path(photo), Path(trimap), {}), Options(quantize=kind == COMPRESSED, mask=band)
        )
    shown = shrink(marked, LONGEST_SHOWN, cv2.INTER_NEAREST)
    return read, paint_trimap(marked, [draw_shapes(shapes, *shown.shape)])


def _layers(painting: EditorValue | None) -> list[np.ndarray]:
    return [np.asarray(layer) for layer in painting["layers"]] if painting else []
