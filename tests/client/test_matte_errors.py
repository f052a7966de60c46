"""The command line `client/matte.py` with one photo: how it refuses, and how it fails."""

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from matting.images import read_trimap, write_image

NOBODY = "127.0.0.1:1"
NO_FILES_HERE = Path("/proc")  # nobody may make files here, not even root

# Bad input: exit code 2, one line, nothing written (the fixture `refuse` checks all three).


def test_missing_photo(refuse, files):
    assert "nosuch.jpg: no such file" in refuse("nosuch.jpg", files[1], "-o", "alpha.png")


def test_missing_trimap_file(run, refuse, files):
    arguments = (files[0], "nosuch.png", "-o", "alpha.png")
    assert "nosuch.png: no such file" in refuse(*arguments)
    code, out, err = run(*arguments, "--json")
    assert code == 2
    assert json.loads(out) == {
        "image": str(files[0]),
        "trimap": "nosuch.png",
        "alpha": "alpha.png",
        "status": "failed",
        "error": err.removeprefix("error: ").rstrip(),
    }


def test_missing_background(refuse, files):
    error = refuse(*files, "--composite", "out.png", "--background", "nosuch.png")
    assert "nosuch.png: no such file" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_photo(refuse, files):
    files[0].chmod(0)
    assert "may not be read" in refuse(*files, "-o", "alpha.png")


def test_photo_that_is_no_image(refuse, files):
    files[0].write_text("a recipe")
    assert "is not an image of a known format" in refuse(*files, "-o", "alpha.png")


def test_photo_of_zero_bytes(refuse, files):
    files[0].write_bytes(b"")
    assert "is empty (0 bytes)" in refuse(*files, "-o", "alpha.png")


def test_truncated_jpeg(refuse, files):
    cv2.imwrite("photo.jpg", cv2.imread(str(files[0])))
    whole = Path("photo.jpg").read_bytes()
    Path("photo.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    assert "damaged or cut short" in refuse("photo.jpg", files[1], "-o", "alpha.png")


def test_sizes_that_differ(refuse, files):
    write_image("small.png", np.zeros((10, 20), np.uint8))
    error = refuse(files[0], "small.png", "-o", "alpha.png")
    assert "photo.png is 53 x 37" in error
    assert "small.png is 20 x 10" in error
    assert "EXIF" in error


def test_trimap_that_is_an_alpha(run, refuse, files):
    ramp = np.tile(np.linspace(0, 255, 53).astype(np.uint8), (37, 1))
    write_image("ramp.png", ramp)
    error = refuse(files[0], "ramp.png", "-o", "alpha.png")
    assert "ramp.png: looks like an alpha matte or a photo" in error
    assert "4, 9, 14" in error
    assert "--quantize" in error

    assert run(files[0], "ramp.png", "-o", "alpha.png", "--quantize")[0] == 0
    alpha = read_trimap("alpha.png")
    assert (alpha[ramp <= 16] == 0).all()
    assert (alpha[ramp >= 239] == 255).all()


def test_trimap_that_is_a_photo(refuse, files, picture):
    assert "photo.png: is in colour" in refuse(files[0], files[0], "-o", "alpha.png")
    write_image("grey.png", picture[0][..., 0])
    assert "grey.png: looks like" in refuse(files[0], "grey.png", "-o", "alpha.png")


@pytest.mark.parametrize("object_is", [0, 1, 230])
def test_mask_without_white(refuse, files, object_is):
    mask = np.zeros((37, 53), np.uint8)
    mask[10:20, 10:20] = object_is
    write_image("mask.png", mask)
    error = refuse(files[0], "mask.png", "--mask", "-o", "alpha.png")
    assert f"mask.png: the mask's brightest value is {object_is}; expected black (0)" in error


def test_mask_without_black(refuse, files):
    write_image("mask.png", np.full((37, 53), 255, np.uint8))
    error = refuse(files[0], "mask.png", "--mask", "-o", "alpha.png")
    assert "mask.png: the mask is white everywhere" in error


def test_a_band_that_leaves_nothing_known(refuse, files):
    mask = np.zeros((37, 53), np.uint8)
    mask[:, 20:30] = 255
    write_image("mask.png", mask)
    bands = ("--erode", 90, "--dilate", 90)
    error = refuse(files[0], "mask.png", "--mask", *bands, "-o", "alpha.png")
    assert "mask.png: all is unknown, because the band" in error


def test_output_folder_missing(refuse, files):
    assert "there is no folder nosuch" in refuse(*files, "-o", "nosuch/alpha.png")


def test_output_folder_is_a_file(refuse, files):
    assert "photo.png" in refuse(*files, "-o", "photo.png/alpha.png")


@pytest.mark.skipif(not NO_FILES_HERE.is_dir(), reason="no /proc on this system")
def test_output_folder_not_writable(refuse, files):
    # The first output could be written, and is not.
    error = refuse(*files, "-o", "alpha.png", "--cutout", NO_FILES_HERE / "cutout.png")
    assert "/proc/cutout.png: cannot be written" in error


def test_outputs_are_checked_before_the_server_is_asked(refuse, files):
    refuse(*files, "-o", "nosuch/alpha.png", url=NOBODY)  # else it would wait and exit with 1


def test_output_of_unknown_format(refuse, files):
    assert "'.gif' names no known format" in refuse(*files, "-o", "alpha.gif")


def test_cutout_in_a_format_without_transparency(refuse, files):
    assert "cutout.jpg: .jpg has no transparency" in refuse(*files, "--cutout", "cutout.jpg")


@pytest.mark.parametrize(("suffix", "length"), [(".jpg", 65501), (".webp", 16384)])
def test_a_format_that_takes_no_such_side_is_told_before_the_server_is_asked(
    refuse, files, suffix, length
):
    write_image("long.png", np.zeros((2, length, 3), np.uint8))
    write_image("known.png", np.full((2, length), 128, np.uint8))
    error = refuse("long.png", "known.png", "-o", f"alpha{suffix}", url=NOBODY)
    assert f"alpha{suffix}: {length} x 2 pixels do not fit {suffix}" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("json", [True, False])
def test_standard_output_that_is_full(start, files, standin, tmp_path, json):
    """What was to be written is: this is neither nothing done nor all."""
    url = ["--url", standin.grpc_url]
    for inputs in (["photo.png", "trimap.png"], ["list.csv"]):
        (tmp_path / "list.csv").write_text("image,trimap\nphoto.png,trimap.png\n")
        output = "alpha.png" if len(inputs) == 2 else "mattes"
        with Path("/dev/full").open("w") as full:
            arguments = [*inputs, "-o", output, *url, *["--json"] * json]
            program = start(*arguments, stdout=full, stderr=subprocess.PIPE)
            _, err = program.communicate(timeout=60)
        assert "error: standard output: No space left on device\n" in err
        assert "Traceback" not in err and "Exception ignored" not in err
        assert program.returncode == 1
    assert (tmp_path / "alpha.png").is_file() and (tmp_path / "mattes/photo.png").is_file()
    with Path("/dev/full").open("w") as full:
        arguments = ["nosuch.png", "trimap.png", "-o", "a.png", *url, "--json"]
        program = start(*arguments, stdout=full, stderr=subprocess.PIPE)
        assert program.communicate(timeout=60)[1] == (
            "error: nosuch.png: no such file; check the name\n"
        )
    assert program.returncode == 2


@pytest.mark.parametrize("taken", ["photo.png", "trimap.png", "./photo.png"])
def test_inputs_are_not_overwritten(refuse, files, taken):
    assert "is used already by this command" in refuse(*files, "-o", taken)


def test_outputs_do_not_overwrite_each_other(refuse, files):
    assert "is used already" in refuse(*files, "-o", "out.png", "--cutout", "out.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "trimap.png"], "nothing to write"),
        (["photo.png", "-o", "alpha.png"], "no TRIMAP for photo.png"),
        (["photo.png", "trimap.png", "--composite", "out.png"], "must be given together"),
        (
            ["photo.png", "trimap.png", "-o", "a.png", "--background", "b.png"],
            "must be given together",
        ),
        (["photo.png", "trimap.png", "-o", "a.png", "--timeout", "0"], "0 is not greater than 0"),
        (["photo.png", "trimap.png", "-o", "a.png", "--timeout", "soon"], "invalid float value"),
        (["photo.png", "trimap.png", "-o", "a.png", "--jobs", "2"], "are only for many photos"),
        (["photo.png", "trimap.png", "-o", "a.png", "--tile", "100"], "multiple of 32 from 96"),
        (["photo.png", "trimap.png", "-o", "a.png", "--tile", "64"], "multiple of 32 from 96"),
        (["photo.png", "trimap.png", "-o", "a.png", "--erode", "3"], "need --mask"),
        (["photo.png", "trimap.png", "-o", "a.png", "--mask", "--dilate", "0.1"], "neither pixels"),
        (["photo.png", "trimap.png", "-o", "a.png", "--mask", "--dilate", "100%"], "nor a percent"),
        (["photo.png", "trimap.png", "-o", "a.png", "--mask", "--quantize"], "is for trimaps"),
        (["photo.png", "trimap.png", "-o", "a.png", "--premultiplied"], "needs --cutout"),
        (["photo.png", "trimap.png", "--composite", "a.png", "--background", "#12"], "#12 is not"),
    ],
)
def test_wrong_usage(refuse, files, arguments, message):
    assert message in refuse(*arguments)


def test_a_name_that_is_too_long(refuse, files):
    assert "File name too long" in refuse(f"{'a' * 300}.png", files[1], "-o", "alpha.png")


def test_wrong_address(refuse, files):
    error = refuse(*files, "-o", "alpha.png", url="http://localhost")
    assert "'http://localhost', expected host:port" in error


# The server fails: exit code 2, one line, nothing written.


def test_server_down(run, files):
    code, out, err = run(*files, "-o", "alpha.png", "--timeout", 0.3, url=NOBODY)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: no server at {NOBODY} for 0.3 s")
    assert err.count("\n") == 1
    assert not Path("alpha.png").exists()
