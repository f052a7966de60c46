"""The page: its parts, and what happens when one of them is used.

What is matted and written is the work of `client.job`, as on the command line: the downloads are
byte for byte what `client/matte.py` writes.
"""

import html
import json
import re
import shutil
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

import cv2
import gradio as gr
import numpy as np
from gradio.components.image_editor import EditorValue

from client.arguments import JOBS_PER_SERVER, parse_background
from client.connection import Matte
from client.drawing import BRUSHES, KINDS, ShapeError, draw_shapes, paint_trimap, shrink, tint
from client.errors import ServerError
from client.job import OUTPUTS, Band, Options, Pair, make_outputs, read_pair, write_outputs
from matting.compositing import checkerboard, composite
from matting.foreground import estimate_foreground
from matting.images import WRITABLE_SUFFIXES, ImageError, Photo, read_photo, to_depth
from matting.trimaps import MASK_BAND, has_unknown

DEMO = Path(__file__).parents[1] / "demo"
LONGEST_SHOWN = 1024
"""Pixels on the longer side of a picture on the page; files keep their size."""
PATIENCE = 2.0
"""Seconds to wait for a server that is not there: somebody sits in front of the page."""

TRIMAP, COMPRESSED, MASK = "a trimap", "an alpha, or a trimap saved as JPEG", "a mask"

INTRODUCTION = """\
# Deep Image Matting
Drop a photo and say what is its subject: with a trimap, a mask, the brush or shapes.
"""
BRUSH_HELP = "Brush: {} subject, all of it; {} edges, hair, all that is half-transparent; \
{} background. What is not painted is background, or what the shapes, the trimap or the mask say."
SHAPES_HELP = f"One ellipse a line: its kind ({', '.join(KINDS)}), then its left, top, right and \
bottom in % of the photo. It lies over the trimap or mask, and under the brush."
CSS = """
.gradio-container { max-width: 1500px !important; margin: 0 auto; }
.dot { display: inline-block; width: .9em; height: .9em; border-radius: 50%; margin: 0 .1em 0 .4em;
  vertical-align: -.1em; border: 1px solid #0006; }
:focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 2px; }
"""
NAMES = """
() => {
  // Gradio names all drop zones alike, and the icons of different parts; pictures it does not name.
  const name = () => {
    for (const label of document.querySelectorAll('[data-testid="block-label"]')) {
      const what = label.textContent.trim(), part = label.closest('.block');
      for (const button of part.querySelectorAll('button')) {
        const said = button.ariaLabel ?? '';
        if (said.startsWith(what) || (!said && button.textContent.trim())) continue;
        button.ariaLabel = said ? `${what}: ${said}` : what;
      }
      for (const image of part.querySelectorAll('img')) image.alt ||= what;
    }
    const brushes = KINDS;
    document.querySelectorAll('button.color').forEach((button, number) => {
      button.ariaLabel = `Brush: ${brushes[number]}`;
    });
    for (const group of document.querySelectorAll('fieldset'))
      group.ariaLabel = group.querySelector('[data-testid="block-info"]').textContent.trim();
    for (const picker of document.querySelectorAll('.color-picker')) {
      picker.querySelector('input').ariaLabel = 'Colour';
      picker.querySelector('.swatch').ariaLabel = 'Colour now';
      picker.querySelector('.eyedropper').ariaLabel = 'Colour from the screen';
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
""".replace("KINDS", json.dumps(list(KINDS)))
# Fonts of the system: others would be fetched from elsewhere.
THEME = gr.themes.Default(
    primary_hue="blue",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)


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
        Their folder. It goes when this does.
    """

    file: str
    photo: Photo
    foreground: np.ndarray
    alpha: np.ndarray
    downloads: TemporaryDirectory


def build(matte: Matte, folder: Path) -> gr.Blocks:
    """Lay the page out and connect its parts.

    Parameters
    ----------
    matte : Matte
        The connection that all users of the page share.
    folder : Path
        Where downloads lie; Gradio's temporary folder, or it would copy them.
    """
    in_words = partial(_in_words, folder=folder)
    with gr.Blocks(title="Deep Image Matting", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRODUCTION)
        warning = gr.HTML(visible=False)
        again = gr.Timer(5, active=False)
        matted = gr.State()
        with gr.Row():
            with gr.Column():
                with gr.Row():
                    photo = _file("Photo", "photo")
                    trimap = _file("Trimap or mask (optional)", "trimap")
                demo = gr.Button("Use the demo photo", size="sm", visible=DEMO.is_dir())
                kind = gr.Radio(
                    [TRIMAP, COMPRESSED, MASK], value=TRIMAP, label="The second file is"
                )
                with gr.Row(visible=False) as band:
                    erode, dilate = (_radius(side) for side in ("inside", "outside"))
                painting = gr.ImageEditor(
                    label="Photo with its trimap",
                    sources=(),
                    transforms=(),
                    layers=False,
                    buttons=[],
                    brush=gr.Brush(colors=[_css(c) for c in BRUSHES.values()], color_mode="fixed"),
                    format="png",
                    height=560,
                    # It measures its place once, at a time when the rest is not all there yet.
                    visible=False,
                )
                gr.HTML(BRUSH_HELP.format(*map(_dot, BRUSHES.values())))
                shapes = gr.Textbox(
                    label="Shapes, without a brush (optional)",
                    info=SHAPES_HELP,
                    placeholder="edges 20 10 80 95",
                    lines=2,
                    submit_btn="Draw",
                )
                start = gr.Button("Matte", variant="primary")
            with gr.Column():
                slider = gr.ImageSlider(
                    label="Before and after", buttons=[], max_height=560, elem_id="slider"
                )
                # The pictures' own line takes no keys.
                division = gr.Slider(
                    0, 100, 50, step=1, label="Before and after: divided at, % of the width"
                )
                with gr.Row():
                    colour = gr.ColorPicker("#ffffff", label="New background: a colour")
                    background = _file("New background: a picture (optional)", "background")
                with gr.Row():
                    alpha, cutout = (
                        gr.Image(label=label, buttons=["fullscreen"], format="png")
                        for label in ("Alpha", "Cut-out")
                    )
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(f"Download {what}", size="md", interactive=False)
                        for what in ("alpha", "cut-out", "composite")
                    ]

        gr.on(
            [page.load, again.tick],
            partial(_warn_without_server, matte),
            None,
            [warning, again],
            show_progress="hidden",
            api_name="server",
        )
        marks = [photo, trimap, kind, erode, dilate, shapes]
        results = [alpha, cutout, slider, *downloads]
        emptied = [trimap, shapes, painting, matted, *results]
        photo.clear(_forget, None, emptied, api_visibility="private")
        photo.upload(_forget, None, emptied, api_visibility="private").success(
            in_words(_show), marks, painting, api_visibility="private"
        )
        demo.click(_forget, None, emptied, api_visibility="private").success(
            _choose_demo, None, [photo, trimap, kind], api_visibility="private"
        ).success(in_words(_show), marks, painting, api_visibility="private")
        kind.change(lambda kind: gr.Row(visible=kind == MASK), kind, band, api_visibility="private")
        gr.on(
            [
                *(trimap.upload, trimap.clear, kind.input, shapes.submit),
                *(erode.change, dilate.change),  # no key ever fires `release`
            ],
            in_words(_show),
            [*marks, painting],
            painting,
            trigger_mode="always_last",  # the second of two quick changes counts, too
            api_name="show",
        )
        start.click(
            in_words(partial(_mat, matte, folder)),
            [*marks, painting],
            matted,
            concurrency_limit=JOBS_PER_SERVER,
            api_name="matte",
        ).success(
            in_words(_show_result),
            [matted, photo, colour, background],
            results,
            concurrency_id="downloads",
            api_name="result",
        )
        gr.on(
            [colour.change, background.upload, background.clear],
            in_words(_show_background),
            [matted, photo, colour, background],
            [slider, downloads[2]],
            trigger_mode="always_last",
            concurrency_id="downloads",  # each deletes the composite before
            api_name="background",
        )
        division.change(
            lambda share: gr.ImageSlider(slider_position=share),
            division,
            slider,
            queue=False,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )
    return page


def launch(page: gr.Blocks, host: str, port: int, inbrowser: bool) -> None:
    """Serve the page in the background. Raises OSError if the port is taken."""
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        allowed_paths=[str(DEMO)],
        theme=THEME,
        css=CSS,
        js=NAMES,
    )


def _in_words(function: Callable[..., object], folder: Path) -> Callable[..., object]:
    """Show a user's mistakes and a server's as the command line words them."""

    @wraps(function)
    def run(*arguments: object) -> object:
        try:
            return function(*arguments)
        except (ImageError, ShapeError, ServerError, ArgumentTypeError) as error:
            # Uploads lie in folders that mean nothing to who looks at the page.
            words = re.sub(rf"{re.escape(str(folder))}/(\w+/)?", "", str(error))
            raise gr.Error(html.escape(words), duration=None, print_exception=False) from error

    return run


def _warn_without_server(matte: Matte) -> tuple[gr.HTML, gr.Timer]:
    """Say that there is no server and look again, until there is one."""
    try:
        matte.wait_until_ready(PATIENCE)
    except ServerError as error:
        words = f'<p role="status"><strong>{html.escape(str(error))}</strong></p>'
        return gr.HTML(words, visible=True), gr.Timer(active=True)
    return gr.HTML(visible=False), gr.Timer(active=False)


def _file(label: str, name: str) -> gr.File:
    return gr.File(label=label, file_types=list(WRITABLE_SUFFIXES), height=150, elem_id=name)


def _radius(side: str) -> gr.Slider:
    return gr.Slider(
        0,
        20,
        value=100 * MASK_BAND,
        step=0.5,
        label=f"Unknown {side} the mask's edge, % of the object's size",
    )


def _css(colour: Iterable[int]) -> str:
    return "#" + bytes(colour).hex()


def _dot(colour: tuple[int, int, int]) -> str:
    return f'<span class="dot" style="background: {_css(colour)}"></span>'


def _forget() -> tuple:
    """Empty all that belongs to a photo which is not there any more."""
    return (
        *(None, "", gr.ImageEditor(None, visible=False), None),
        *(None, None, None),
        *(gr.DownloadButton(value=None, interactive=False) for _ in OUTPUTS),
    )


def _choose_demo() -> tuple[str, str, str]:
    return str(DEMO / "photo.jpg"), str(DEMO / "trimap.png"), TRIMAP


def _show(
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
    view = tint(_view(read.pixels), shrink(marked, LONGEST_SHOWN, cv2.INTER_NEAREST))
    layers = _layers(painting)
    value = EditorValue(background=view, layers=[*layers], composite=None)
    return gr.ImageEditor(value, visible=True)


def _mat(
    matte: Matte,
    folder: Path,
    photo: str | None,
    trimap: str | None,
    kind: str,
    erode: float | None,
    dilate: float | None,
    shapes: str,
    painting: EditorValue | None = None,
) -> Matted:
    if photo is None:
        raise ImageError("no photo yet: drop one first")
    read, marked = _read(photo, trimap, kind, erode, dilate, shapes)
    marked = paint_trimap(marked, _layers(painting))
    if not marked.any():
        raise ImageError(
            "all of the photo is background: paint its subject and the edges, or drop its trimap "
            "or mask"
        )
    if has_unknown(marked):
        matte.wait_until_ready(PATIENCE)
    alpha = matte.alpha(to_depth(read.pixels, np.uint8), marked)
    foreground = estimate_foreground(read.pixels, alpha)
    return Matted(photo, read, foreground, alpha, TemporaryDirectory(dir=folder))


def _show_result(
    matted: Matted | None, photo: str | None, colour: str, background: str | None
) -> tuple:
    """Return views of alpha and cut-out, both sides of the slider, and the three files."""
    if matted is None or matted.file != photo:  # which was changed meanwhile
        return (gr.skip(),) * (3 + len(OUTPUTS))
    files, after = _write(matted, OUTPUTS, colour, background)
    alpha = shrink(matted.alpha, LONGEST_SHOWN)
    foreground = _view(matted.foreground)
    cutout = composite(alpha, foreground, checkerboard(*alpha.shape))
    return alpha, cutout, (_view(matted.photo.pixels), after), *files


def _show_background(
    matted: Matted | None, photo: str | None, colour: str, background: str | None
) -> tuple:
    """Return both sides of the slider and the composite's file."""
    if matted is None or matted.file != photo:
        return gr.skip(), gr.skip()
    files, after = _write(matted, ["composite"], colour, background)
    return (_view(matted.photo.pixels), after), *files


def _write(
    matted: Matted, kinds: Sequence[str], colour: str, background: str | None
) -> tuple[list[gr.DownloadButton], np.ndarray]:
    """Write some of `OUTPUTS`; return buttons that download them, and the composite to look at."""
    chosen = parse_background(background or _hex(colour))
    pixels = read_photo(chosen).pixels if isinstance(chosen, Path) else chosen
    options = Options(background=pixels)
    made = make_outputs(
        kinds, matted.photo.pixels, matted.alpha, options, foreground=matted.foreground
    )
    name, place = Path(matted.file).stem, matted.downloads.name
    before = [file for kind in kinds for file in Path(place).glob(f"*/*-{kind}.png")]
    # Folders of their own: browsers keep what they once had from an address.
    outputs = {kind: Path(mkdtemp(dir=place)) / f"{name}-{kind}.png" for kind in kinds}
    write_outputs(outputs, made, matted.photo.metadata)
    for file in before:
        shutil.rmtree(file.parent)
    buttons = [gr.DownloadButton(value=outputs[kind], interactive=True) for kind in kinds]
    return buttons, _view(made["composite"])


def _hex(colour: str) -> str:
    """Write a colour as #rrggbb, which the picker gives as rgba(r, g, b, 1) once it was used."""
    if colour.startswith("#"):
        return colour
    return _css(round(float(part)) for part in re.findall(r"[\d.]+", colour)[:3])


def _view(pixels: np.ndarray) -> np.ndarray:
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
