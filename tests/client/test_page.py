"""The page, through the interface that it uses itself."""

import html
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from PIL import ImageCms

# Gradio itself takes long to load: only the worker with these tests does.
if find_spec("gradio") is None:
    pytest.skip("needs the extra `page`", allow_module_level=True)
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from client.connection import Matte
from client.errors import CancelledError
from client.page.drawing import BRUSHES
from client.page.runs import Runs
from client.tiles import worthwhile_tiles
from matting.images import read_gray, read_image, read_photo, write_image
from matting.knn import knn_alpha
from matting.metadata import Metadata
from matting.trimaps import FOREGROUND, MASK_BAND, trimap_from_mask

ROOT = Path(__file__).parents[2]
DEMO_PHOTO = ROOT / "demo/photo.jpg"
# As in client.page.actions, which takes seconds to load.
TRIMAP, COMPRESSED, MASK = "a trimap", "an alpha, or a trimap saved as JPEG", "a mask"
BAND = 100 * MASK_BAND
TILES = 8
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory) -> Path:
    """Where the page keeps its files."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(standin, page_folder, open_page) -> Iterator[str]:
    """The address of a page that asks the stand-in, past a proxy that is not there.

    It sees within a second that a client is gone.
    """
    proxy = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "", "NO_PROXY": "example.com"}
    rate = {"GRADIO_HEARTBEAT_INTERVAL": "1"}
    with open_page(standin.grpc_url, page_folder, **proxy, **rate) as address:
        yield address


@pytest.fixture(scope="module")
def lonely_page(open_page, free_port, tmp_path_factory) -> Iterator[tuple[str, int]]:
    """The address of a page, and the port where a test may start the page's server."""
    port, rate = free_port(), {"GRADIO_HEARTBEAT_INTERVAL": "1"}
    with open_page(f"127.0.0.1:{port}", tmp_path_factory.mktemp("lonely"), **rate) as address:
        yield address, port


@pytest.fixture
def tiled_files(tmp_path) -> list[Path]:
    """A photo and a trimap that are sent as `TILES` tiles."""
    photo, trimap = np.zeros((1600, 1600, 3), np.uint8), np.zeros((1600, 1600), np.uint8)
    for place in range(100, 1600, 200):
        trimap[place : place + 16, place : place + 16] = 128
    tiles = worthwhile_tiles(trimap)
    assert tiles and len(tiles) == TILES
    files = [tmp_path / "photo.png", tmp_path / "trimap.png"]
    for file, picture in zip(files, (photo, trimap), strict=True):
        write_image(file, picture)
    return files


@pytest.fixture
def use(page, tmp_path, monkeypatch) -> Callable:
    """Do what the button does; return the files of alpha, cut-out and composite."""
    monkeypatch.chdir(tmp_path)
    client = Client(page, verbose=False, download_files=tmp_path / "downloads")

    def matte(
        photo,
        trimap=None,
        kind=TRIMAP,
        layers=(),
        colour="#ffffff",
        background=None,
        shapes="",
        better_edges=False,
    ):
        photo, trimap, background = (
            None if file is None else handle_file(file) for file in (photo, trimap, background)
        )
        layers = [handle_file(layer) for layer in layers]
        painting = {"background": None, "layers": layers, "composite": None}
        marks = [photo, trimap, kind, BAND, BAND, shapes]
        client.predict(*marks, painting, better_edges, api_name="/matte")
        *_, alpha, cutout, composite = client.predict(photo, colour, background, api_name="/result")
        return [Path(button["value"]) for button in (alpha, cutout, composite)]

    return matte


@pytest.fixture
def fail(use) -> Callable[..., str]:
    """Do what the button does, which must fail; return what the page says."""

    def use_and_fail(*arguments, **options):
        with pytest.raises(AppError) as failure:
            use(*arguments, **options)
        return str(failure.value)

    return use_and_fail


def test_downloads_are_what_the_command_line_writes(run, use, files, picture):
    deep = np.random.default_rng(1).integers(0, 2**16, picture[0].shape, dtype=np.uint16)
    write_image("deep.tif", deep, Metadata(icc=PROFILE))
    outputs = ["-o", "alpha.png", "--cutout", "cutout.png", "--composite", "composite.png"]
    code, _, err = run("deep.tif", files[1], *outputs, "--background", files[0])
    assert (code, err) == (0, "")
    made = use("deep.tif", files[1], background=files[0])
    assert [file.name for file in made] == [f"deep-{name}" for name in outputs[1::2]]
    for file, name in zip(made, outputs[1::2], strict=True):
        assert file.read_bytes() == Path(name).read_bytes()
    assert read_photo(made[1]).pixels.dtype == np.uint16
    assert read_photo(made[1]).metadata.icc == PROFILE


def test_better_edges_are_of_neighbours(use, files, picture, expected_alpha):
    alpha = expected_alpha(*picture)
    for better_edges, expected in ((False, alpha), (True, knn_alpha(*picture, alpha))):
        made = read_gray(use(*files, better_edges=better_edges)[0])
        np.testing.assert_array_equal(made, expected)


def test_masks_and_other_values(use, files, picture, expected_alpha):
    disc = cv2.circle(np.zeros((37, 53), np.uint8), (26, 18), 12, 255, cv2.FILLED)
    write_image("mask.png", disc)
    alpha = read_gray(use(files[0], "mask.png", MASK)[0])
    np.testing.assert_array_equal(alpha, expected_alpha(picture[0], trimap_from_mask(disc)))
    write_image("soft.png", np.where(picture[1] == 255, 250, picture[1]).astype(np.uint8))
    alpha = read_gray(use(files[0], "soft.png", COMPRESSED)[0])
    np.testing.assert_array_equal(alpha, expected_alpha(*picture))


def test_strokes_lie_over_the_trimap(use, files, picture, expected_alpha):
    strokes = np.zeros((37, 53, 4), np.uint8)
    strokes[:, :20] = (*BRUSHES[FOREGROUND], 255)
    write_image("strokes.png", strokes)
    alpha = read_gray(use(*files, layers=["strokes.png"])[0])
    expected = expected_alpha(*picture)
    expected[:, :20] = 255
    np.testing.assert_array_equal(alpha, expected)


def test_shapes_lie_between_the_trimap_and_the_strokes(use, files, picture, expected_alpha):
    strokes = np.zeros((37, 53, 4), np.uint8)
    strokes[:, :20] = (*BRUSHES[FOREGROUND], 255)
    write_image("strokes.png", strokes)
    # Wider than the photo, so that their edges are straight.
    shapes = "background -999 0 999 100\nedges -999 40 999 60"
    alpha = read_gray(use(*files, layers=["strokes.png"], shapes=shapes)[0])
    trimap = np.zeros((37, 53), np.uint8)
    trimap[15:22] = 128
    trimap[:, :20] = 255
    np.testing.assert_array_equal(alpha, expected_alpha(picture[0], trimap))


def test_strokes_stay_when_the_trimap_changes(page, files, tmp_path):
    strokes = np.zeros((37, 53, 4), np.uint8)
    strokes[:, :20] = (*BRUSHES[FOREGROUND], 255)
    write_image(tmp_path / "strokes.png", strokes)
    layers = [handle_file(tmp_path / "strokes.png")]
    painting = {"background": None, "layers": layers, "composite": None}
    client = Client(page, verbose=False, download_files=tmp_path / "downloads")
    marks = [handle_file(file) for file in files]
    shown = client.predict(*marks, COMPRESSED, BAND, BAND, "", painting, api_name="/show")["value"]
    kept = cv2.imread(shown["layers"][0], cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(cv2.cvtColor(kept, cv2.COLOR_BGRA2RGBA), strokes)


@pytest.mark.parametrize("colour", ["#07f", "#0077ff", "rgba(0, 119, 255, 1)"])
def test_colours(use, files, colour):
    composite = read_image(use(*files, colour=colour)[2])
    assert composite[0, 0].tolist() == [0, 119, 255]


def test_only_the_last_downloads_are_kept(page, page_folder, files, tmp_path):
    photo, trimap = handle_file(files[0].rename(tmp_path / "kept.png")), handle_file(files[1])
    client = Client(page, verbose=False, download_files=tmp_path / "downloads")

    def kept():
        return sorted(file.name for file in page_folder.glob("*/*/*/kept-*.png"))

    for before in ([], ["kept-alpha.png", "kept-composite.png", "kept-cutout.png"]):
        client.predict(photo, trimap, TRIMAP, BAND, BAND, "", None, api_name="/matte")
        assert kept() == before
        client.predict(photo, "#ffffff", None, api_name="/result")
        for colour in ("#ff0000", "#00ff00"):
            client.predict(photo, colour, None, api_name="/background")
        assert kept() == ["kept-alpha.png", "kept-composite.png", "kept-cutout.png"]


def test_a_connection_that_breaks_loses_no_matte(page, page_folder, files, tmp_path):
    photo, trimap = handle_file(files[0].rename(tmp_path / "broken.png")), handle_file(files[1])
    client, again = (Client(page, verbose=False, download_files=False) for _ in range(2))
    again.session_hash = client.session_hash
    client.predict(photo, trimap, TRIMAP, BAND, BAND, "", None, api_name="/matte")
    client.close()
    time.sleep(2)  # the page notices within this time
    again.predict(photo, "#ff0000", None, api_name="/background")
    assert list(page_folder.glob("*/*/*/broken-composite.png"))


def test_two_with_the_same_photo_share_no_view(page, files):
    photo, trimap = map(handle_file, files)
    marks = [photo, trimap, TRIMAP, BAND, BAND, "", None]

    def views():
        client = Client(page, verbose=False, download_files=False)
        shown = client.predict(*marks, api_name="/show")["value"]["background"]
        client.predict(*marks, False, api_name="/matte")
        alpha, cutout, sides, *_ = client.predict(photo, "#ffffff", None, api_name="/result")
        return {view["path"] for view in (shown, alpha, cutout, *sides)}

    first, second = views(), views()
    assert len(first | second) == 10


def test_results_of_another_photo_are_not_shown(page, files, tmp_path):
    photo, trimap = map(handle_file, files)
    client = Client(page, verbose=False, download_files=tmp_path / "downloads")
    client.predict(photo, trimap, TRIMAP, BAND, BAND, "", None, api_name="/matte")
    for other in (None, handle_file(DEMO_PHOTO)):
        for step in ("/result", "/background"):
            shown = client.predict(other, "#ffffff", None, api_name=step)
            assert all(set(update) == {"__type__"} for update in shown), shown


def test_mistakes_are_said_as_on_the_command_line(run, refuse, use, fail, files, picture):
    Path("a<b>.png").write_text("no picture")
    write_image("other.png", picture[1][1:])
    write_image("soft.png", picture[0][..., 0])
    for photo, trimap in [("a<b>.png", files[1]), (files[0], "other.png"), (files[0], "soft.png")]:
        said = html.unescape(fail(photo, trimap))
        # Files have names here, and no folders; browsers may change the names.
        expected = refuse(photo, trimap, "-o", "alpha.png").replace(f"{files[0].parent}/", "")
        expected = expected.replace("quantize it (--quantize)", f"select “{COMPRESSED}”")
        assert said.replace("ab.png", "a<b>.png") == expected.removeprefix("error: ")
        assert "--" not in said
    stripes = np.tile(np.array([0, 255], np.uint8), (37, 27))[:, :53]
    write_image("stripes.png", stripes)
    assert fail(files[0], "stripes.png", MASK).endswith("make it narrower with the sliders")
    assert fail(None) == "no photo yet: drop one first"
    assert fail(files[0]).startswith("all of the photo is background")
    assert html.unescape(fail(*files, shapes="edges 1 2 3")).startswith("line 1 of the shapes is")
    assert len(use(*files)) == 3  # and goes on


def test_a_background_that_is_none_leaves_alpha_and_cutout(
    page, files, picture, expected_alpha, tmp_path
):
    (tmp_path / "beach.png").write_text("no picture")
    client = Client(page, verbose=False, download_files=tmp_path / "downloads")
    photo, trimap, beach = map(handle_file, (*files, tmp_path / "beach.png"))
    client.predict(photo, trimap, TRIMAP, BAND, BAND, "", None, False, api_name="/matte")
    for colour, background, message in (
        ("#ffffff", beach, r"^beach\.png: is not an image of a known format"),
        ("", None, "^“” is not a colour; write #rgb or #rrggbb$"),
        ("rouge", None, "^“rouge” is not a colour"),
        ("rgb(256, 0, 0)", None, r"^“rgb\(256, 0, 0\)” is not a colour"),
    ):
        shown = client.predict(photo, colour, background, api_name="/result")
        *_, sides, alpha, cutout, composite = shown
        np.testing.assert_array_equal(read_gray(alpha["value"]), expected_alpha(*picture))
        assert read_image(cutout["value"]).shape == picture[0].shape
        assert sides is None and composite["value"] is None and not composite["interactive"]
        with pytest.raises(AppError, match=message):
            client.predict(photo, colour, background, api_name="/background")


def test_a_damaged_background_is_told(files, picture, tmp_path, monkeypatch):
    from client.page.actions import Matted, show_result

    said = []
    monkeypatch.setattr(
        "client.page.actions.gr.Warning", lambda words, duration: said.append(words)
    )
    (tmp_path / "beach.png").write_text("no picture")
    matted = Matted(
        *(str(files[0]), read_photo(files[0]), *picture, TemporaryDirectory(dir=tmp_path))
    )
    show_result(tmp_path, matted, str(files[0]), "#ffffff", str(tmp_path / "beach.png"))
    assert [words.startswith("beach.png: is not an image") for words in said] == [True]


def test_a_mask_that_is_taken_for_a_trimap_is_told(files, picture, tmp_path):
    from client.page.actions import matte_upload

    mask = tmp_path / "mask.png"
    write_image(mask, np.where(picture[1] == 128, 255, picture[1]).astype(np.uint8))
    told = pytest.warns(UserWarning, match=f"nothing is marked as edges, .* select “{MASK}”")
    with Matte("127.0.0.1:1") as matte, told:  # the page's own, outside of the page
        matte_upload(matte, tmp_path, str(files[0]), str(mask), TRIMAP, BAND, BAND, "")


def test_server_down(lonely_page, files, launch_standin, wait_until, tmp_path):
    address, port = lonely_page
    absent = f"no server at 127.0.0.1:{port} .* `python -m server`"
    client = Client(address, verbose=False, download_files=tmp_path)
    marks = [handle_file(file) for file in files]
    for _ in range(2):
        with pytest.raises(AppError, match=absent):
            client.predict(*marks, TRIMAP, BAND, BAND, "", None, api_name="/matte")
    assert re.search(absent, client.predict(api_name="/server"))
    launch_standin(grpc_port=port)
    wait_until(lambda: not client.predict(api_name="/server"))


def test_what_is_under_way_waits_for_a_server_that_comes_back(
    lonely_page, tiled_files, launch_standin, kill, count_requests, wait_until, tmp_path
):
    address, port = lonely_page
    server = launch_standin(grpc_port=port, seconds=0.3)
    client = Client(address, verbose=False, download_files=tmp_path)
    marks = [handle_file(file) for file in tiled_files]
    run = client.submit(*marks, TRIMAP, BAND, BAND, "", None, False, api_name="/matte")
    wait_until(lambda: count_requests(server.grpc_url))
    kill(server)
    wait_until(lambda: client.predict(api_name="/server").endswith("“Cancel” gives it up."))
    assert not run.done()
    again = launch_standin(grpc_port=port)
    run.result(30)
    assert 0 < count_requests(again.grpc_url) < TILES


def test_with_a_closed_tab_ends_its_run_and_no_other(
    lonely_page, tiled_files, launch_standin, count_requests, wait_until
):
    address, port = lonely_page
    server = launch_standin(grpc_port=port, seconds=0.5)
    clients = [Client(address, verbose=False, download_files=False) for _ in range(2)]
    marks = [handle_file(file) for file in tiled_files]
    runs = [
        client.submit(*marks, TRIMAP, BAND, BAND, "", None, False, api_name="/matte")
        for client in clients
    ]
    wait_until(lambda: count_requests(server.grpc_url) > 1)
    clients[0].close()
    runs[1].result(30)
    assert TILES <= count_requests(server.grpc_url) < 2 * TILES - 1


def test_a_run_can_be_cancelled_before_it_has_come():
    runs = Runs()
    runs.cancel(1)
    with pytest.raises(CancelledError), runs.begin(1) as request:
        request.check()
    with pytest.raises(CancelledError), runs.begin(2) as request:
        request.check()
        runs.cancel(2)
        request.check()
    assert not (runs.has_failed(1) or runs.has_failed(2))


def test_a_run_that_failed_is_known():
    runs = Runs()
    with pytest.raises(ValueError), runs.begin(1):
        raise ValueError
    assert runs.has_failed(1)
    with runs.begin(2):
        pass
    assert not runs.has_failed(2)


IMPATIENT = """
import sys
from client.page import layout
from client.page.__main__ import main
layout.SWEEP, layout.KEPT, layout.GRACE = 1, 5, 1
sys.exit(main(sys.argv[1:]))
"""


def test_old_files_are_deleted(standin, files, free_port, tmp_path, wait_until):
    port = free_port()
    command = [sys.executable, "-c", IMPATIENT, "--port", str(port), "--url", standin.grpc_url]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "GRADIO_HEARTBEAT_INTERVAL": "1"}

    def kept():
        return [path for path in tmp_path.glob("matte-page-*/**/*.png") if path.is_file()]

    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            client = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=False)
            marks = [handle_file(file) for file in files]
            for _ in range(2):
                client.predict(*marks, TRIMAP, BAND, BAND, "", None, api_name="/show")
                wait_until(lambda: not kept())
            client.predict(*marks, TRIMAP, BAND, BAND, "", None, api_name="/matte")
            client.predict(marks[0], "#ffffff", None, api_name="/result")
            (alpha,) = tmp_path.glob("matte-page-*/*/*/*-alpha.png")
            client.close()  # and with a tab goes its folder
            wait_until(lambda: not alpha.parents[1].exists())
            again = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=False)
            again.session_hash = client.session_hash
            with pytest.raises(AppError, match=r"^this result is not kept any more"):
                again.predict(marks[0], "#ffffff", None, marks[0], api_name="/background")
        finally:
            process.send_signal(signal.SIGTERM)


def test_what_is_deleted_has_to_be_dropped_again(files, tmp_path):
    import gradio as gr

    from client.page.actions import in_words, show_photo

    trimap = tmp_path / "upload" / "<b>.png"
    show = in_words(partial(show_photo, tmp_path), tmp_path)
    with pytest.raises(gr.Error, match=r"^.&lt;b&gt;[.]png: was dropped more than a day"):
        show(str(files[0]), str(trimap), TRIMAP, BAND, BAND, "")
