"""The page `python -m client.page`: as a program, through its interface, and in a browser."""

import html
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ImageCms

pytest.importorskip("gradio", reason="needs the extra `page`")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from client.drawing import BRUSHES
from client.layout import COMPRESSED, MASK, TRIMAP
from client.page import main
from matting.images import read_gray, read_image, read_photo, write_image
from matting.metadata import Metadata
from matting.trimaps import FOREGROUND, MASK_BAND, trimap_from_mask

ROOT = Path(__file__).parents[2]
DEMO_PHOTO, DEMO_TRIMAP, DEMO_BACKGROUND = (
    ROOT / "demo" / name for name in ("photo.jpg", "trimap.png", "background.jpg")
)
BAND = 100 * MASK_BAND
DIVISION = "range slider for Before and after: divided at, % of the width"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def open_page(url: str, temporary: Path) -> Iterator[str]:
    """Run the page as a program, which must leave nothing behind; yield its address."""
    command = [sys.executable, "-m", "client.page", "--port", str(free_port()), "--url", url]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            address = re.match(r"open (http://127\.0\.0\.1:\d+) in", process.stdout.readline())
            assert address, "the page did not start"
            yield address[1]
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
    assert code == 0
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory) -> Path:
    """Where the page keeps its files."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(standin, page_folder) -> Iterator[str]:
    """The address of a page that asks the stand-in."""
    with open_page(standin.grpc_url, page_folder) as address:
        yield address


# Through the interface that the page itself uses.


@pytest.fixture
def use(page, tmp_path, monkeypatch) -> Callable:
    """Do what the button does; return the files of alpha, cut-out and composite."""
    monkeypatch.chdir(tmp_path)
    client = Client(page, verbose=False, download_files=tmp_path / "downloads")

    def mat(
        photo, trimap=None, kind=TRIMAP, layers=(), colour="#ffffff", background=None, shapes=""
    ):
        photo, trimap, background = (
            None if file is None else handle_file(file) for file in (photo, trimap, background)
        )
        layers = [handle_file(layer) for layer in layers]
        painting = {"background": None, "layers": layers, "composite": None}
        marks = [photo, trimap, kind, BAND, BAND, shapes]
        client.predict(*marks, painting, api_name="/matte")
        *_, alpha, cutout, composite = client.predict(photo, colour, background, api_name="/result")
        return [Path(button["value"]) for button in (alpha, cutout, composite)]

    return mat


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

    for _ in range(2):
        client.predict(photo, trimap, TRIMAP, BAND, BAND, "", None, api_name="/matte")
        client.predict(photo, "#ffffff", None, api_name="/result")
        for colour in ("#ff0000", "#00ff00"):
            client.predict(photo, colour, None, api_name="/background")
        assert kept() == ["kept-alpha.png", "kept-composite.png", "kept-cutout.png"]


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
        assert said.replace("ab.png", "a<b>.png") == expected.removeprefix("error: ")
    assert fail(None) == "no photo yet: drop one first"
    assert fail(files[0]).startswith("all of the photo is background")
    assert html.unescape(fail(*files, shapes="edges 1 2 3")).startswith("line 1 of the shapes is")
    assert len(use(*files)) == 3  # and goes on


def test_server_down(files, launch_standin, tmp_path_factory, tmp_path):
    port = free_port()
    url = f"127.0.0.1:{port}"
    absent = f"no server at {url} .* `python -m server`"
    with open_page(url, tmp_path_factory.mktemp("down")) as address:
        client = Client(address, verbose=False, download_files=tmp_path)
        marks = [handle_file(file) for file in files]
        for _ in range(2):
            with pytest.raises(AppError, match=absent):
                client.predict(*marks, TRIMAP, BAND, BAND, "", None, api_name="/matte")
        warning, again = client.predict(api_name="/server")
        assert warning["visible"] and again["active"]
        assert re.search(absent, html.unescape(warning["value"]))
        launch_standin(grpc_port=port)
        for _ in range(10):  # gRPC looks again every two seconds
            warning, again = client.predict(api_name="/server")
            if not again["active"]:
                break
        assert not warning["visible"] and not again["active"]


# As a program.


def test_a_taken_port_is_one_line(page):
    port = page.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "client.page", "--port", port],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"error: no page at 127.0.0.1:{port} .*try another --port\n", done.stderr)


def test_from_a_terminal_with_a_display_a_browser_is_opened(standin, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" >> "$0.log"\n')
    browser.chmod(0o755)
    ours, terminal = pty.openpty()
    environment = {**os.environ, "DISPLAY": ":9", "BROWSER": f"{browser} %s"}
    port = free_port()
    command = [sys.executable, "-m", "client.page", "--url", standin.grpc_url, "--port", str(port)]
    for options, opened in ((["--no-browser"], False), ([], True)):
        with subprocess.Popen(
            command + options, cwd=ROOT, env=environment, stdout=terminal
        ) as process:
            said = os.read(ours, 1000)
            process.send_signal(signal.SIGTERM)
        assert said.startswith(b"open http") and process.returncode == 0
        log = tmp_path / "browser.log"
        assert log.exists() == opened
    assert log.read_text() == f"http://127.0.0.1:{port}/\n"
    os.close(ours)
    os.close(terminal)


@pytest.mark.parametrize(
    ("option", "message"),
    [("--url=localhost", "expected host:port"), ("--ca=missing", "missing: cannot be read")],
)
def test_wrong_options_are_one_line(capsys, option, message):
    assert main([option]) == 2
    assert message in capsys.readouterr().err


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def real_page(browser, server, tmp_path_factory) -> Iterator[str]:
    """The address of a page that asks the default model."""
    with open_page(server.grpc_url, tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture
def tab(browser, real_page) -> Iterator:
    """The page in a browser, which must ask nobody else for anything."""
    context = browser.new_context(viewport={"width": 1500, "height": 1100})
    context.set_default_timeout(60_000)
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    tab = context.new_page()
    # File choosers are caught from now on: asked for just before a key, Playwright may be too late.
    tab.on("filechooser", lambda chooser: None)
    tab.goto(real_page)
    yield tab
    context.close()
    strangers = [url for url in asked if not url.startswith((real_page, "blob:", "data:"))]
    assert asked and not strangers


def press(tab, name):
    tab.get_by_role("button", name=name, exact=True).press("Enter")


def drop(tab, place, file):
    tab.set_input_files(f"#{place} input[type=file]", file)


def download(tab, name, folder):
    with tab.expect_download() as waiting:
        tab.locator("button:enabled", has_text=f"Download {name}").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def tab_to(tab, name, key="Tab"):
    """Press Tab until the control of this name has the focus."""
    focused = """() => {
        const { ariaLabel, labels, innerText } = document.activeElement;
        return (ariaLabel ?? labels?.[0]?.innerText ?? innerText).trim().split("\\n")[0];
    }"""
    for _ in range(80):
        tab.keyboard.press(key)
        if tab.evaluate(focused) == name:
            return
    pytest.fail(f"{key} never comes to {name}")


def choose(tab, zone, file):
    tab_to(tab, f"{zone}: Click to upload or drop files")
    with tab.expect_file_chooser() as waiting:
        tab.keyboard.press("Enter")
    waiting.value.set_files(file)


@contextmanager
def renewed(tab, place):
    """What is done within must load a new picture here."""
    shown = tab.locator(f"{place} img").last.evaluate("image => image.src")
    yield
    tab.wait_for_function(
        "([place, shown]) => [...document.querySelectorAll(`${place} img`)].at(-1).src != shown",
        arg=[place, shown],
    )


@contextmanager
def previewed(tab, seen):
    """What is done within must load a picture into the editor that was not there before."""
    with tab.expect_response(
        lambda response: response.url.endswith("/image.png") and response.url not in seen
    ) as waiting:
        yield
    seen.add(waiting.value.url)


def check_names(tab):
    names = tab.locator("button:visible, [role=button]:visible").evaluate_all(
        "controls => controls.map(control => control.ariaLabel ?? control.innerText)"
    )
    assert len(names) > 5 and all(names) and len(set(names)) == len(names), names


def test_by_keyboard_alone(tab, run, server, count_requests, tmp_path):
    """The picture in the README is the `page.png` that this leaves."""
    outputs = ["-o", "alpha.png", "--cutout", "cutout.png", "--composite", "composite.png"]
    arguments = [DEMO_PHOTO, DEMO_TRIMAP, *outputs, "--background", DEMO_BACKGROUND]
    assert run(*arguments, url=server.grpc_url)[0] == 0
    before = count_requests(server.grpc_url)
    seen = set()

    def note(request):
        seen.add(request.url)

    tab.on("request", note)
    check_names(tab)
    choose(tab, "Photo", DEMO_PHOTO)
    tab.get_by_text("97%").wait_for()  # so the other zone has been emptied, too
    choose(tab, "Trimap or mask (optional)", DEMO_TRIMAP)
    tab.get_by_label("Trimap or mask (optional): Clear").wait_for()
    tab_to(tab, "Matte")
    tab.keyboard.press("Enter")
    tab.locator("button:enabled", has_text="Download composite").wait_for()
    tab_to(tab, DIVISION)
    after = tab.locator("#slider img").nth(1)
    share = "image => parseFloat(image.style.clipPath.split(' ').at(-1))"
    halved = after.evaluate(share)
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    tab.wait_for_function(
        f"halved => ({share})(document.querySelectorAll('#slider img')[1]) < halved", arg=halved
    )
    tab_to(tab, "New background: a colour")
    tab.keyboard.press("Enter")
    tab_to(tab, "Colour")
    check_names(tab)
    tab.keyboard.press("Control+A")
    with renewed(tab, "#slider"):
        tab.keyboard.type("#ff0000\n")
    tab_to(tab, "New background: a colour", "Shift+Tab")
    tab.keyboard.press("Enter")
    with renewed(tab, "#slider"):
        choose(tab, "New background: a picture (optional)", DEMO_BACKGROUND)
    for name in ("alpha", "cut-out", "composite"):
        tab_to(tab, f"Download {name}")
        with tab.expect_download() as waiting:
            tab.keyboard.press("Enter")
        written = Path(waiting.value.suggested_filename.removeprefix("photo-"))
        assert Path(waiting.value.path()).read_bytes() == written.read_bytes()
    assert count_requests(server.grpc_url) == before + 1
    check_names(tab)
    tab.evaluate("document.activeElement.blur()")
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    tab.remove_listener("request", note)
    tab_to(tab, MASK)
    with previewed(tab, seen):
        tab.keyboard.press("Space")
    tab_to(tab, "range slider for Unknown inside the mask's edge, % of the object's size")
    with previewed(tab, seen):
        tab.keyboard.press("ArrowRight")
    tab_to(tab, "Shapes, without a brush (optional)")
    tab.keyboard.type("edges 20 10 80 95\nsubject 40 40 60 60")
    tab_to(tab, "Draw")
    with previewed(tab, seen):
        tab.keyboard.press("Enter")


def test_strokes_of_the_brush_are_a_trimap(tab, server, count_requests, tmp_path):
    def stroke(colour, row):
        press(tab, "Photo with its trimap: Color")
        tab.get_by_label(f"Brush: {colour}").click()
        box = tab.locator("canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + row
        tab.mouse.move(x - 80, y)
        tab.mouse.down()
        tab.mouse.move(x + 80, y, steps=2)  # each waits for a picture, without a GPU for long
        tab.mouse.up()

    before = count_requests(server.grpc_url)
    drop(tab, "photo", DEMO_PHOTO)
    tab.get_by_text("97%").wait_for()  # the photo fits its place now, almost pixel by pixel
    stroke("edges", 40)
    stroke("subject", 0)
    press(tab, "Matte")
    alpha = read_gray(download(tab, "alpha", tmp_path))
    assert (alpha[256, 180:332] == 255).all()
    assert not alpha[:200].any() and not alpha[335:].any()
    assert count_requests(server.grpc_url) > before  # so the stroke of unknown was asked for
    press(tab, "Photo: Clear")
    for name in ("alpha", "cut-out", "composite"):
        tab.locator("button:disabled", has_text=f"Download {name}").wait_for()
    assert tab.locator("#slider img, canvas").count() == 0
    press(tab, "Use the demo photo")
    tab.locator("canvas").first.wait_for()


def test_mistakes_are_shown_in_words(tab, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(DEMO_TRIMAP.read_bytes()[:1000])
    drop(tab, "photo", broken)
    error = tab.get_by_role("status").filter(has_text="broken.png: this PNG is damaged or cut")
    error.wait_for()  # in a live region, which is read aloud
    press(tab, "Use the demo photo")
    tab.wait_for_selector("canvas")
    write_image(tmp_path / "small.png", np.zeros((9, 9), np.uint8))
    tab.locator("#trimap").get_by_label("Clear").click()
    drop(tab, "trimap", tmp_path / "small.png")
    tab.get_by_text("photo.jpg is 512 x 512 but small.png is 9 x 9 pixels").wait_for()
