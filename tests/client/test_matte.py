"""The command line `client/matte.py` with one photo: what it writes."""

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from client.matte import Matte
from matting.compositing import composite, fit_background
from matting.foreground import estimate_foreground
from matting.images import read_cutout, read_image, read_trimap, write_image
from matting.knn import knn_alpha
from matting.trimaps import MASK_BAND, trimap_from_mask

SCRIPT = Path(__file__).parents[2] / "client" / "matte.py"
DATA = Path(__file__).parents[1] / "data"
NOBODY = "127.0.0.1:1"


def save(path, picture):
    """Save as OpenCV does: BGR, any depth, no checks."""
    assert cv2.imwrite(str(path), picture)
    return path


def test_alpha(run, files, picture, expected_alpha):
    code, out, err = run(*files, "-o", "alpha.png")
    assert (code, err) == (0, "")
    assert out.startswith("wrote alpha.png in ")
    alpha = cv2.imread("alpha.png", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(alpha, expected_alpha(*picture))


def test_cutout_and_composite_have_the_foregrounds_own_colours(
    run, files, picture, make_picture, expected_alpha
):
    background = make_picture(20, 20, seed=1)[0]
    write_image("background.png", background)
    code, _, err = run(
        *files,
        "--cutout",
        "cutout.webp",
        "--composite",
        "new.png",
        "--background",
        "background.png",
    )
    assert (code, err) == (0, "")
    alpha = expected_alpha(*picture)
    foreground = estimate_foreground(picture[0], alpha)
    rgba = cv2.cvtColor(cv2.imread("cutout.webp", cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    np.testing.assert_array_equal(rgba[..., 3], alpha)
    visible = alpha > 0
    np.testing.assert_array_equal(rgba[visible][:, :3], foreground[visible])
    expected = composite(alpha, foreground, fit_background(background, *alpha.shape))
    np.testing.assert_array_equal(read_image("new.png"), expected)


def test_existing_outputs_are_replaced(run, files):
    Path("alpha.png").write_text("old")
    assert run(*files, "-o", "alpha.png")[0] == 0
    assert read_trimap("alpha.png").shape == (37, 53)


def test_trimap_without_unknown_is_the_alpha(run, files):
    known = np.zeros((37, 53), np.uint8)
    known[10:20] = 255
    write_image("known.png", known)
    code, out, err = run(files[0], "known.png", "-o", "alpha.png", url=NOBODY)
    assert (code, err) == (0, "")
    assert "known.png has no unknown pixels: it is the alpha; no server was asked" in out
    np.testing.assert_array_equal(read_trimap("alpha.png"), known)


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("grey.png", lambda bgr: bgr[..., 0]),
        ("rgba.png", lambda bgr: np.dstack([bgr, bgr[..., :1]])),
        ("16-bit.png", lambda bgr: bgr.astype(np.uint16) * 257),
        ("16-bit-grey.tif", lambda bgr: bgr[..., 0].astype(np.uint16) * 257),
    ],
)
def test_other_kinds_of_photos(run, files, name, convert):
    stored = cv2.imread(str(files[0]))
    code, _, err = run(save(name, convert(stored)) and name, files[1], "-o", "alpha.png")
    assert (code, err) == (0, "")
    green = stored[..., 0 if "grey" in name else 1]
    unknown = read_trimap(files[1]) == 128
    np.testing.assert_array_equal(read_trimap("alpha.png")[unknown], green[unknown])


def test_cmyk_photo(run):
    photo = DATA / "images" / "cmyk.jpg"  # red, green, blue and grey, in ink
    write_image("trimap.png", np.full((16, 32), 128, np.uint8))
    code, _, err = run(photo, "trimap.png", "-o", "alpha.png")
    assert (code, err) == (0, "")
    alpha = read_trimap("alpha.png")
    np.testing.assert_array_equal(alpha, read_image(photo)[..., 1])
    assert alpha[0, 0] <= 2  # red has no green in it


def test_exif_rotation_is_applied_to_photo_and_trimap(run, picture, expected_alpha):
    image, trimap = picture
    write_image("photo.png", image)
    write_image("trimap.png", trimap)
    for name in ("photo.png", "trimap.png"):
        set_orientation(Path(name), 6)  # a quarter turn to the right is needed to show it
    code, _, err = run("photo.png", "trimap.png", "-o", "alpha.png")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(
        cv2.imread("alpha.png", cv2.IMREAD_UNCHANGED), np.rot90(expected_alpha(image, trimap), -1)
    )


def set_orientation(png, orientation):
    """Add an eXIf chunk that holds nothing but the orientation."""
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    data = png.read_bytes()
    png.write_bytes(data[:33] + chunk + data[33:])  # after the signature and IHDR


def test_rotation_in_only_one_file_is_explained(refuse, files):
    set_orientation(files[0], 6)
    error = refuse(*files, "-o", "alpha.png")
    assert "37 x 53" in error
    assert "53 x 37" in error
    assert "EXIF rotation is applied to both" in error


@pytest.mark.parametrize("size", [(1, 1), (200, 5), (5, 200)])
def test_small_photos(run, make_picture, expected_alpha, size):
    image, trimap = make_picture(*size)
    write_image("photo.png", image)
    write_image("trimap.png", trimap)
    assert run("photo.png", "trimap.png", "-o", "alpha.png", "--cutout", "cutout.png")[0] == 0
    np.testing.assert_array_equal(read_trimap("alpha.png"), expected_alpha(image, trimap))


def test_48_megapixels(run):
    image = np.full((6000, 8000, 3), 77, np.uint8)
    trimap = np.full((6000, 8000), 255, np.uint8)
    trimap[1000:1400, 2000:4000] = 128
    write_image("photo.png", image)
    write_image("trimap.png", trimap)
    code, _, err = run("photo.png", "trimap.png", "-o", "alpha.png")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_trimap("alpha.png"), np.where(trimap == 255, 255, 77))


@pytest.fixture
def mask(files):
    """A mask of an object that fills a part of the photo, as a file."""
    disc = cv2.circle(np.zeros((37, 53), np.uint8), (26, 18), 12, 255, cv2.FILLED)
    write_image("mask.png", disc)
    return disc


@pytest.mark.parametrize(
    ("options", "band"),
    [
        ([], (MASK_BAND, MASK_BAND)),
        (["--erode", "3", "--dilate", "4.5"], (3, 4.5)),
        (["--erode", "20%"], (0.2, MASK_BAND)),
        (["--dilate", "0"], (MASK_BAND, 0)),
    ],
)
def test_mask(run, files, picture, mask, expected_alpha, options, band):
    code, _, err = run(files[0], "mask.png", "--mask", *options, "-o", "alpha.png")
    assert (code, err) == (0, "")
    expected = expected_alpha(picture[0], trimap_from_mask(mask, *band))
    np.testing.assert_array_equal(read_trimap("alpha.png"), expected)


def test_tiles(run, make_picture, expected_alpha):
    image, trimap = make_picture(150, 230)
    write_image("photo.png", image)
    write_image("trimap.png", trimap)
    code, _, err = run("photo.png", "trimap.png", "-o", "alpha.png", "--tile", 96)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_trimap("alpha.png"), expected_alpha(image, trimap))


def test_views(run, files, picture, expected_alpha, asked):
    code, _, err = run(*files, "-o", "alpha.png", "--views", 2)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_trimap("alpha.png"), expected_alpha(*picture))
    assert asked() == 2


def test_knn(run, files, picture, expected_alpha):
    code, _, err = run(*files, "-o", "alpha.png", "--knn")
    assert (code, err) == (0, "")
    alpha = expected_alpha(*picture)
    better = knn_alpha(*picture, alpha)
    assert (better != alpha).any()
    np.testing.assert_array_equal(read_trimap("alpha.png"), better)


@pytest.mark.parametrize(
    ("colour", "rgb"), [("#ffffff", (255, 255, 255)), ("#07F", (0, 0x77, 255))]
)
def test_composite_on_a_colour(run, files, picture, expected_alpha, colour, rgb):
    assert run(*files, "--composite", "new.png", "--background", colour)[0] == 0
    alpha = expected_alpha(*picture)
    background = np.full_like(picture[0], rgb)
    expected = composite(alpha, estimate_foreground(picture[0], alpha), background)
    np.testing.assert_array_equal(read_image("new.png"), expected)


def test_premultiplied_cutout(run, files, picture, expected_alpha):
    assert run(*files, "--cutout", "cutout.png", "--premultiplied")[0] == 0
    colours, alpha = read_cutout("cutout.png")
    np.testing.assert_array_equal(alpha, expected_alpha(*picture))
    exact = estimate_foreground(picture[0], alpha) * (alpha[..., np.newaxis] / 255)
    assert np.abs(colours - exact).max() <= 0.5


@pytest.mark.parametrize(("option", "kind"), [([], 2), (["--premultiplied"], 1)])
def test_a_tiff_says_whether_it_is_premultiplied(run, files, option, kind):
    assert run(*files, "--cutout", "cutout.tif", *option)[0] == 0
    with Image.open("cutout.tif") as tiff:
        assert tiff.tag_v2[338] == (kind,)  # ExtraSamples


# As a program.


def test_runs_as_a_file_from_anywhere(standin, files, tmp_path):
    command = [sys.executable, SCRIPT, *files, "-o", "alpha.png", "--url", standin.grpc_url]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert re.fullmatch(r"[0-9a-f]{32}", record.pop("request"))
    assert record == {
        "image": str(files[0]),
        "trimap": str(files[1]),
        "alpha": "alpha.png",
        "status": "written",
        "rejections": 0,
    }
    assert (tmp_path / "alpha.png").exists()


def test_quiet_says_nothing(run, files):
    assert run(*files, "-o", "alpha.png", "--quiet") == (0, "", "")


def test_help_shows_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "python client/matte.py cat.jpg cat-trimap.png -o cat-alpha.png" in out


def test_library_is_importable_from_the_program():
    assert Matte.__module__ == "client.connection"
