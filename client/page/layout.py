"""The page: where its parts are, and which of `client.page.actions` each of them calls."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from fastapi import Depends, HTTPException, Request
from gradio.components import Component
from gradio.events import api

from client.arguments import JOBS_PER_SERVER
from client.connection import Matte
from client.page import actions
from client.page.actions import COMPRESSED, MASK, TRIMAP
from client.page.drawing import BRUSHES, KINDS, css_colour
from client.page.runs import Runs
from client.page.scripts import (
    ASK_BEFORE_LOSS,
    BEGIN,
    CANCEL,
    CLOSE_MESSAGES,
    CONNECTION,
    END,
    FOCUS_START,
    NAMES,
    SAVED,
    WORKED,
)
from client.page.style import CSS, THEME
from matting.images import MAX_PIXELS, WRITABLE_SUFFIXES
from matting.trimaps import MASK_BAND

INTRODUCTION = """\
# Deep Image Matting
Cut the subject out of a photo, hair and all: drop the photo, paint its subject and edges with the
brush (or drop a second file in which they are marked), press “Cut out”, and download the result.
"""
SWEEP, KEPT = 3600, 24 * 3600
"""Seconds between searches for old files, and until an upload, or what was made of it, is old."""
GRACE = 600
"""Seconds until a closed tab's results are freed: a broken connection looks the same."""
ANY_HOST = "0.0.0.0"
"""An address to listen on that says nothing about the name by which the page is asked for."""
KIND_HELP = "A trimap is white where the subject is, black where the background is, and grey along \
edges and hair. A mask has no grey. An alpha has all greys, as in “Download alpha”."
BRUSH_HELP = "Paint {} the whole subject, {} its edges, hair and all that one can see through, \
{} the background. What you do not paint is as the shapes or the second file say; without these, \
background."
SHAPES_HELP = f"One ellipse per line: its kind ({', '.join(KINDS)}), then its left, top, right and \
bottom in % of the photo, from its left and top. Shapes cover the second file; the brush paints \
over shapes."
RESULT_HELP = "Alpha: white is the subject, black is not, grey is partly see-through. Cut-out: the \
subject with nothing around it. Composite: the subject on the new background."


class Inputs(NamedTuple):
    """Where a photo is dropped and marked."""

    photo: gr.File
    trimap: gr.File
    demo: gr.Button
    kind: gr.Radio
    band: gr.Row
    erode: gr.Slider
    dilate: gr.Slider
    painting: gr.ImageEditor
    shapes: gr.Textbox
    better_edges: gr.Checkbox
    start: gr.Button
    cancel: gr.Button
    run: gr.Number

    @property
    def marks(self) -> list[Component]:
        """What the functions of `client.page.actions` take as a photo and its marks."""
        return [self.photo, self.trimap, self.kind, self.erode, self.dilate, self.shapes]


class Results(NamedTuple):
    """Where a matte is shown and downloaded, and on what."""

    slider: gr.ImageSlider
    division: gr.Slider
    colour: gr.ColorPicker
    background: gr.File
    alpha: gr.Image
    cutout: gr.Image
    downloads: list[gr.DownloadButton]

    @property
    def made(self) -> list[Component]:
        """All that is made of a matte."""
        return [self.alpha, self.cutout, self.slider, *self.downloads]


def build(matte: Matte, folder: Path) -> gr.Blocks:
    """Lay the page out and connect its parts.

    Parameters
    ----------
    matte : Matte
        The connection that all users of the page share.
    folder : Path
        Where downloads lie; Gradio's temporary folder, or it would copy them.
    """
    with gr.Blocks(
        title="Deep Image Matting",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(SWEEP, KEPT),
    ) as page:
        gr.Markdown(INTRODUCTION)
        runs = gr.State(Runs())
        _end_closed_tabs(page, runs)
        api(partial(actions.look_for_server, matte, folder), api_name="server", queue=False)
        page.load(None, None, None, js=CONNECTION)
        page.load(None, None, None, js=ASK_BEFORE_LOSS)
        matted = gr.State()
        with gr.Row():
            with gr.Column():
                inputs = _lay_out_inputs()
            with gr.Column():
                results = _lay_out_results()
        _connect_browser(inputs, results)
        # First what ends a run: it must not wait for what the same event does besides.
        _connect_results(inputs, results, matted, runs, matte, folder)
        _connect_inputs(inputs, results, matted, folder)
    return page


def _lay_out_inputs() -> Inputs:
    with gr.Row():
        photo = _file("Photo", "photo")
        trimap = _file("Trimap or mask (optional)", "trimap")
    demo = gr.Button("Use the demo photo", size="sm", visible=actions.DEMO.is_dir())
    kind = gr.Radio(
        [TRIMAP, COMPRESSED, MASK], value=TRIMAP, label="The second file is", info=KIND_HELP
    )
    with gr.Row(visible=False) as band:
        erode, dilate = (_radius(side) for side in ("inside", "outside"))
    painting = gr.ImageEditor(
        label="Marked photo",
        sources=(),
        transforms=(),
        layers=False,
        buttons=[],
        brush=gr.Brush(colors=[css_colour(c) for c in BRUSHES.values()], color_mode="fixed"),
        format="png",
        height=560,
        elem_id="painting",
        # It measures its place once, at a time when the rest is not all there yet.
        visible=False,
    )
    gr.HTML(BRUSH_HELP.format(*map(_dot, BRUSHES.values())))
    shapes = gr.Textbox(
        label="Shapes instead of the brush (optional)",
        info=SHAPES_HELP,
        placeholder="edges 20 10 80 95",
        lines=2,
        submit_btn="Draw",
    )
    better_edges = gr.Checkbox(
        True, label="Better edges (large photos take longer)", container=False
    )
    with gr.Row():
        start = gr.Button("Cut out", variant="primary", scale=3, elem_id="start")
        cancel = gr.Button("Cancel", interactive=False, scale=1)
    run = gr.Number(0, precision=0, visible=False)  # the latest one's, for `Runs`
    return Inputs(
        *(photo, trimap, demo, kind, band, erode, dilate, painting, shapes, better_edges),
        *(start, cancel, run),
    )


def _lay_out_results() -> Results:
    slider = gr.ImageSlider(label="Before and after", buttons=[], max_height=560, elem_id="slider")
    # The pictures' own line takes no keys.
    division = gr.Slider(0, 100, 50, step=1, label="Before and after: divider, % of the width")
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
    gr.HTML(RESULT_HELP)
    return Results(slider, division, colour, background, alpha, cutout, downloads)


def _connect_browser(inputs: Inputs, results: Results) -> None:
    """Let the browser close outdated messages, and know whether there is work to lose."""
    photo, shapes = inputs.photo, inputs.shapes
    gr.on(
        [
            *(inputs.start.click, inputs.demo.click, inputs.kind.input, shapes.submit),
            *(photo.upload, inputs.trimap.upload, results.background.upload),
            *(photo.clear, inputs.trimap.clear, results.background.clear),
        ],
        *(None, None, None),
        js=CLOSE_MESSAGES,
    )
    gr.on(
        [photo.change, shapes.input, results.alpha.change],
        *(None, photo, None),
        js=WORKED,
    )
    gr.on([button.click for button in results.downloads], *(None, None, None), js=SAVED)


def _connect_inputs(inputs: Inputs, results: Results, matted: gr.State, folder: Path) -> None:
    show_photo = actions.in_words(partial(actions.show_photo, folder), folder)
    photo, trimap, kind, painting = inputs.photo, inputs.trimap, inputs.kind, inputs.painting
    made = [painting, matted, *results.made]
    emptied = [trimap, inputs.shapes, *made]
    # Gradio asks a part for its value before it shows progress there. The editor takes its time,
    # each time another: what came last could be shown before, and “processing” stay for good.
    files = [photo, trimap]
    step: dict[str, Any] = {"show_progress_on": files, "api_visibility": "private"}
    photo.clear(actions.forget, None, emptied, **step)
    # The trimap may have been dropped before.
    photo.upload(actions.forget_results, None, made, **step).success(
        show_photo, inputs.marks, painting, **step
    )
    inputs.demo.click(actions.forget, None, emptied, **step).success(
        actions.choose_demo, None, [photo, trimap, kind], **step
    ).success(show_photo, inputs.marks, painting, **step)
    # The editor's own “Clear canvas” takes the photo away, too.
    painting.clear(show_photo, inputs.marks, painting, **step)
    kind.change(
        lambda kind: gr.Row(visible=kind == MASK), kind, inputs.band, api_visibility="private"
    )
    gr.on(
        [
            *(trimap.upload, trimap.clear, kind.input, inputs.shapes.submit),
            *(inputs.erode.change, inputs.dilate.change),  # no key ever fires `release`
        ],
        show_photo,
        [*inputs.marks, painting],
        painting,
        show_progress_on=files,
        trigger_mode="always_last",  # the second of two quick changes counts, too
        api_name="show",
    )


def _connect_results(
    inputs: Inputs,
    results: Results,
    matted: gr.State,
    runs: gr.State,
    matte: Matte,
    folder: Path,
) -> None:
    in_words = partial(actions.in_words, folder=folder)
    slider, colour, background = results.slider, results.colour, results.background
    start, cancel, run = inputs.start, inputs.cancel, inputs.run
    start.click(None, run, [run, start, cancel], js=BEGIN)
    matting = start.click(
        in_words(partial(actions.matte_upload, matte, folder)),
        [*inputs.marks, inputs.painting, inputs.better_edges, run, matted, runs],
        matted,
        show_progress_on=[slider, results.alpha, results.cutout],
        concurrency_limit=JOBS_PER_SERVER,
        api_name="matte",
    )
    result = matting.success(
        in_words(partial(actions.show_result, folder)),
        [matted, inputs.photo, colour, background],
        results.made,
        concurrency_id="downloads",
        api_name="result",
    )
    made = [matted, *results.made]
    unseen: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    matting.failure(actions.forget_failed, [runs, run], made, **unseen)
    result.failure(actions.forget_matte, None, made, **unseen)
    for end in (matting.then, matting.failure):  # only one of them is called
        end(None, None, [start, cancel], js=END).then(None, None, None, js=FOCUS_START)
    cancel.click(None, None, cancel, js=CANCEL)
    # With another photo, too, nobody waits for this one any more.
    ends = [cancel.click, inputs.photo.clear, inputs.photo.upload, inputs.demo.click]
    gr.on(ends, None, cancels=matting)  # the page is free at once, but its thread would go on
    gr.on(ends, Runs.cancel, [runs, run], None, **unseen)
    gr.on(
        [colour.change, background.upload, background.clear],
        in_words(actions.show_background),
        [matted, inputs.photo, colour, background, results.downloads[0]],
        [slider, results.downloads[2]],
        trigger_mode="always_last",
        concurrency_id="downloads",  # each deletes the composite before
        api_name="background",
    ).failure(
        actions.forget_composite,
        None,
        [slider, results.downloads[2]],
        **unseen,
    )
    gr.on(
        [button.click for button in results.downloads],
        in_words(actions.check_kept),
        [matted, results.downloads[0]],
        None,
        trigger_mode="multiple",
        **unseen,
    )
    results.division.change(
        lambda share: gr.ImageSlider(slider_position=share),
        results.division,
        slider,
        queue=False,
        trigger_mode="always_last",
        **unseen,
    )


def _end_closed_tabs(page: gr.Blocks, runs: gr.State) -> None:
    """Stop what a tab that is closed or reloaded has under way; later free its matte.

    Gradio would do neither: the run would go on, and the matte be kept for an hour.
    """

    def free(session: str) -> None:
        sessions = page.state_holder
        used = sessions.time_last_used.get(session)
        if used and datetime.now() - used < timedelta(seconds=GRACE):
            return  # it was not closed
        sessions.delete_state(session)
        # What is still being made for it must not be kept, either.
        sessions.session_data.pop(session, None)

    async def end_session(request: gr.Request) -> None:
        page.state_holder[str(request.session_hash)][runs._id].stop()
        # A second later: this is a use, too.
        asyncio.get_running_loop().call_later(GRACE + 1, free, str(request.session_hash))

    page.unload(end_session)


def check_site(host: str) -> Callable[[Request], None]:
    """Return what refuses other sites' pages, even if their name is made to mean this machine."""
    names = {host.lower(), "localhost", "127.0.0.1"}

    def check(request: Request) -> None:
        asked = request.headers.get("host", "")
        if host != ANY_HOST and asked.lower().partition(":")[0] not in names:
            raise HTTPException(403, f"this page answers only at {' or '.join(sorted(names))}")
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != asked:
            raise HTTPException(403, f"{origin} is not {asked}, where this page is served")

    return check


def launch(page: gr.Blocks, host: str, port: int, inbrowser: bool) -> None:
    """Serve the page in the background. Raises OSError if the port is taken."""
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        enable_monitoring=False,
        max_file_size=8 * MAX_PIXELS,  # as large as the largest RGBA of 16 bits, uncompressed
        app_kwargs={"dependencies": [Depends(check_site(host))]},
        footer_links=[],
        allowed_paths=[str(actions.DEMO)],
        theme=THEME,
        css=CSS,
        js=NAMES,
    )


def _file(label: str, name: str) -> gr.File:
    return gr.File(label=label, file_types=list(WRITABLE_SUFFIXES), height=150, elem_id=name)


def _radius(side: str) -> gr.Slider:
    return gr.Slider(
        0,
        20,
        value=100 * MASK_BAND,
        step=0.5,
        label=f"Edges: how far {side} the mask they reach, % of the subject's size",
    )


def _dot(colour: tuple[int, int, int]) -> str:
    return f'<span class="dot" style="background: {css_colour(colour)}"></span>'
