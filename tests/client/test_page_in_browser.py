"""The page `python -m client.page` in a browser, with the default model."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from client.tiles import worthwhile_tiles
from matting.images import read_gray, read_image, read_trimap, write_image

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra `page`")

DEMO_PHOTO, DEMO_TRIMAP, DEMO_BACKGROUND = (
    Path(__file__).parents[2] / "demo" / name
    for name in ("photo.jpg", "trimap.png", "background.jpg")
)
EDGES_INSIDE = "range slider for Edges: how far inside the mask they reach, % of the subject's size"
DIVISION = "range slider for Before and after: divider, % of the width"
# The editor draws each frame anew, changed or not, which without a GPU keeps a core busy.
FEW_FRAMES = """{
  const frame = requestAnimationFrame;
  window.requestAnimationFrame = work => setTimeout(() => frame(work), 200);
  window.cancelAnimationFrame = clearTimeout;
}"""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


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
def real_page(browser, server, open_page, tmp_path_factory) -> Iterator[str]:
    """The address of a page that asks the default model."""
    with open_page(server.grpc_url, tmp_path_factory.mktemp("page")) as address:
        yield address


@contextmanager
def opened(browser, address, **options) -> Iterator:
    """Open the page in a new tab, which must ask nobody else for anything."""
    context = browser.new_context(viewport={"width": 1500, "height": 1100}, **options)
    context.set_default_timeout(60_000)
    context.add_init_script(FEW_FRAMES)
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    tab = context.new_page()
    # File choosers are caught from now on: asked for just before a key, Playwright may be too late.
    tab.on("filechooser", lambda chooser: None)
    tab.goto(address)
    tab.locator("#start").wait_for()
    yield tab
    context.close()
    strangers = [url for url in asked if not url.startswith((address, "blob:", "data:"))]
    assert asked and not strangers


@pytest.fixture
def sharp_tab(browser, real_page) -> Iterator:
    with opened(browser, real_page) as tab:
        yield tab


@pytest.fixture
def tab(browser, real_page) -> Iterator:
    """On a screen with a quarter of the pixels: without a GPU they are what takes the time."""
    with opened(browser, real_page, device_scale_factor=0.5) as tab:
        yield tab


def press(tab, name):
    tab.get_by_role("button", name=name, exact=True, disabled=False).press("Enter")


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
        lambda response: response.url.endswith("-view.png") and response.url not in seen
    ) as waiting:
        yield
    seen.add(waiting.value.url)


@contextmanager
def on_hold(tab, address):
    """What is done within must ask for this, which is sent when the rest has been done."""
    held = []
    tab.route(address, lambda route: held.append(route))
    with tab.expect_request(address):
        yield
    for route in held:
        route.continue_()
    tab.unroute(address)  # which lets later ones pass


def contrast(tab, place):
    """The ratio of the luminances of a text and of what lies behind it, as WCAG defines it."""
    colours = tab.locator(place).first.evaluate(
        """element => {
            const { color } = getComputedStyle(element);
            const behind = () => getComputedStyle(element).backgroundColor;
            while (behind() == 'rgba(0, 0, 0, 0)') element = element.parentElement;
            return [color, behind()].map(colour => colour.match(/\\d+/g).slice(0, 3).map(Number));
        }"""
    )
    linear = ((np.array(colours) / 255 + 0.055) / 1.055) ** 2.4
    darker, lighter = sorted(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
    return lighter / darker


def stroke(tab, colour, row):
    """Paint from left to right, this many pixels below the middle."""
    press(tab, "Marked photo: Color")
    tab.get_by_label(f"Brush: {colour}").click()
    box = tab.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + row
    tab.mouse.move(x - 80, y)
    tab.mouse.down()
    tab.mouse.move(x + 80, y, steps=2)  # each waits for a picture, without a GPU for long
    tab.mouse.up()


def asks_before_loss(tab):
    """Whether the browser would ask before the page is closed or left."""
    return tab.evaluate("!dispatchEvent(new Event('beforeunload', { cancelable: true }))")


def check_names(tab):
    names = tab.locator("button:visible, [role=button]:visible").evaluate_all(
        "controls => controls.map(control => control.ariaLabel ?? control.innerText)"
    )
    assert len(names) > 5 and all(names) and len(set(names)) == len(names), names


def test_by_keyboard_alone(sharp_tab, run, server, count_requests, tmp_path):
    """The picture in the README is the `page.png` that this leaves."""
    outputs = ["-o", "alpha.png", "--cutout", "cutout.png", "--composite", "composite.png"]
    tab = sharp_tab
    arguments = [DEMO_PHOTO, DEMO_TRIMAP, *outputs, "--background", DEMO_BACKGROUND, "--knn"]
    assert run(*arguments, url=server.grpc_url)[0] == 0
    before = count_requests(server.grpc_url)
    seen = set()

    def note(request):
        seen.add(request.url)

    tab.on("request", note)
    check_names(tab)
    choose(tab, "Trimap or mask (optional)", DEMO_TRIMAP)
    tab.get_by_label("Trimap or mask (optional): Clear").wait_for()
    choose(tab, "Photo", DEMO_PHOTO)
    tab.get_by_text("97%").wait_for()
    tab_to(tab, "Cut out")
    with on_hold(tab, "**/queue/join*"):
        tab.keyboard.press("Enter")
        tab.locator("#slider .progress-text:visible").wait_for()
    tab.locator("button:enabled", has_text="Download composite").wait_for()
    tab_to(tab, DIVISION)
    tab.locator("#slider img").nth(1).wait_for(state="attached")
    clip = "document.querySelectorAll('#slider img')[1].style.clipPath"
    share = f"parseFloat({clip}.split(' ').at(-1))"
    halved = tab.wait_for_function(share).json_value()  # none until the picture is there
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    tab.wait_for_function(f"halved => {share} < halved", arg=halved)
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
    assert tab.evaluate("Object.keys(localStorage).filter(key => key.includes('run'))") == []
    check_names(tab)
    tab.evaluate("document.activeElement.blur()")
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    tab.remove_listener("request", note)
    tab_to(tab, "a mask")
    with previewed(tab, seen):
        tab.keyboard.press("Space")
    tab_to(tab, EDGES_INSIDE)
    with previewed(tab, seen):
        tab.keyboard.press("ArrowRight")
    tab_to(tab, "Shapes instead of the brush (optional)")
    tab.keyboard.type("edges 20 10 80 95\nsubject 40 40 60 60")
    tab_to(tab, "Draw")
    with previewed(tab, seen):
        tab.keyboard.press("Enter")


def test_strokes_of_the_brush_are_a_trimap(tab, server, count_requests, tmp_path):
    before = count_requests(server.grpc_url)
    drop(tab, "photo", DEMO_PHOTO)
    tab.get_by_text("97%").wait_for()
    with previewed(tab, set()):
        press(tab, "Marked photo: Clear canvas")  # of what was painted, not of the photo
    tab.get_by_text("97%").wait_for()  # the photo fits its place now, almost pixel by pixel
    stroke(tab, "edges", 40)
    stroke(tab, "subject", 0)
    press(tab, "Cut out")
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
    press(tab, "Photo: Clear")
    tab.get_by_label("Trimap or mask (optional): Click to upload or drop files").wait_for()


def test_nobody_paints_while_the_marked_photo_is_made_anew(tab):
    working = '{} [data-testid="status-tracker"]:not(.hide)'.format
    can_paint = "getComputedStyle(document.querySelector('#painting')).pointerEvents == 'auto'"
    press(tab, "Use the demo photo")
    tab.get_by_text("97%").wait_for()
    tab.wait_for_function(can_paint)
    with previewed(tab, set()), on_hold(tab, "**/queue/join*"):
        tab.get_by_label("a mask").press("Space")
        for place in ("#photo", "#trimap"):
            tab.locator(working(place)).wait_for()
        assert not tab.evaluate(can_paint)
        assert tab.locator(working("#painting")).count() == 0  # where it might stay for good
    tab.wait_for_function(can_paint)


def test_what_is_cancelled_ends(tab, server, count_requests, tmp_path):
    """At once, while the painting is still uploaded, and later.

    The photo has so many tiles that it is not too late.
    """
    pictures = {"photo": read_image(DEMO_PHOTO), "trimap": read_trimap(DEMO_TRIMAP)}
    for place, picture in pictures.items():
        pictures[place] = picture.repeat(3, axis=0).repeat(3, axis=1)
        write_image(tmp_path / f"{place}.png", pictures[place])
        drop(tab, place, tmp_path / f"{place}.png")
    tab.locator("canvas").first.wait_for()
    before = count_requests(server.grpc_url)
    with on_hold(tab, "**/upload*"):
        press(tab, "Cut out")
        press(tab, "Cancel")
        tab.get_by_role("button", name="Cancelling …", disabled=True).wait_for()
    tab.locator("#start:enabled").wait_for()
    assert count_requests(server.grpc_url) == before
    press(tab, "Cut out")
    while count_requests(server.grpc_url) == before:
        tab.wait_for_timeout(100)
    tab_to(tab, "Cancel")
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Cancel", exact=True, disabled=True).wait_for()
    tab.wait_for_function("document.activeElement.innerText == 'Cut out'")
    tab.wait_for_timeout(2000)  # the tile that the server had begun with
    asked = count_requests(server.grpc_url) - before
    assert asked < len(worthwhile_tiles(pictures["trimap"]))
    tab.wait_for_timeout(1000)
    assert asked == count_requests(server.grpc_url) - before
    assert tab.locator("button:enabled", has_text="Download alpha").count() == 0


def test_work_is_not_lost_without_a_question(tab, tmp_path):
    press(tab, "Cut out")
    tab.get_by_text("no photo yet").wait_for()
    assert not asks_before_loss(tab)
    press(tab, "Use the demo photo")
    tab.get_by_text("97%").wait_for()
    assert asks_before_loss(tab)
    press(tab, "Cut out")
    tab.locator("#slider").get_by_text("processing").wait_for()
    with tab.expect_event("dialog") as waiting:
        tab.close(run_before_unload=True)
    waiting.value.dismiss()
    download(tab, "alpha", tmp_path)
    assert not asks_before_loss(tab)
    stroke(tab, "subject", 0)
    assert asks_before_loss(tab)
    press(tab, "Photo: Clear")
    tab.locator("canvas").first.wait_for(state="hidden")
    assert not asks_before_loss(tab)


def test_a_run_that_fails_leaves_no_result_of_another(tab, tmp_path):
    def shown():
        downloads = tab.locator("button:enabled", has_text="Download ")
        return tab.locator("#slider img").count(), downloads.count()

    press(tab, "Use the demo photo")
    tab.get_by_text("97%").wait_for()
    press(tab, "Cut out")
    tab.locator("button:enabled", has_text="Download composite").wait_for()
    press(tab, "Cut out")
    tab.locator("#slider").get_by_text("processing").wait_for()
    with on_hold(tab, "**/cancel"):  # so that Gradio tells of its end twice
        press(tab, "Cancel")
        tab.locator("#start:enabled").wait_for()
    (tmp_path / "beach.png").write_text("no picture")
    drop(tab, "background", tmp_path / "beach.png")
    tab.locator("button:disabled", has_text="Download composite").wait_for()
    assert shown() == (0, 2)
    write_image(tmp_path / "small.png", np.zeros((9, 9), np.uint8))
    tab.locator("#trimap").get_by_label("Clear").click()
    drop(tab, "trimap", tmp_path / "small.png")
    tab.get_by_text("small.png is 9 x 9").wait_for()
    tab.locator("canvas").first.click(trial=True)  # which nothing covers
    press(tab, "Cut out")
    tab.locator("button:disabled", has_text="Download alpha").wait_for()
    assert shown() == (0, 0)
    messages = """document.querySelectorAll('[data-testid="toast-text"]').length"""
    tab.wait_for_function(f"{messages} == 1")  # without those of what was tried before


def test_what_is_painted_outlasts_the_network(tab, tmp_path):
    drop(tab, "photo", DEMO_PHOTO)
    tab.get_by_text("97%").wait_for()
    alert = tab.get_by_role("alert").filter(has_text="does not answer")
    tab.context.set_offline(True)
    press(tab, "Cut out")
    alert.wait_for()
    for place, is_inert in (("#start", True), ("#photo", True), ("#painting", False)):
        assert tab.locator(place).evaluate("part => part.inert") == is_inert, place
    stroke(tab, "edges", 40)
    stroke(tab, "subject", 0)
    tab.context.set_offline(False)
    alert.wait_for(state="hidden")
    press(tab, "Cut out")
    assert (read_gray(download(tab, "alpha", tmp_path))[256, 180:332] == 255).all()


def test_small_print_can_be_read(tab):
    for place in (".info-text", ".or", ".max_value", ".primary"):
        assert contrast(tab, place) > 4.5, place


def test_mistakes_are_shown_in_words(tab, tmp_path):
    (tmp_path / "notes.txt").touch()
    drop(tab, "photo", tmp_path / "notes.txt")
    tab.get_by_role("status").filter(has_text="Invalid file type: notes.txt").wait_for()
    with tab.expect_file_chooser():
        tab.get_by_label("Photo: Click to upload or drop files").click()  # nothing covers it
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
    server, alert = "**/gradio_api/run/server", tab.get_by_role("alert")
    tab.route(server, lambda route: route.fulfill(json={"data": ["no <server>. “Cancel”"]}))
    alert.filter(has_text="no <server>. “Cancel”").wait_for()
    tab.unroute(server)
    alert.filter(has_text=re.compile("^$")).wait_for(state="hidden")
    asked = "**/gradio_api/app_id"
    tab.route(asked, lambda route: route.abort())
    alert.filter(has_text="does not answer").wait_for()
    tab.unroute(asked)
    tab.route(asked, lambda route: route.fulfill(body="another program"))
    alert.filter(has_text="reload the page").wait_for()
