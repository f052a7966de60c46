"""The command line `client/matte.py` with one photo: what it writes, and how it refuses."""

import json
import os
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from client.matte import Matte, main
from matting.compositing import composite, fit_background
from matting.foreground import estimate_foreground
from matting.images import read_image, read_trimap, write_image

SCRIPT = Path(__file__).parents[2] / "client" / "matte.py"
DATA = Path(__file__).parents[1] / "data"
NOBODY = "127.0.0.1:1"
NO_FILES_HERE = Path("/proc")  # nobody may make files here, not even root


@pytest.fixture
def run(standin, capsys, monkeypatch, tmp_path):
    """Run the command in tmp_path; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments, url=standin.grpc_url):
        try:
            code = main([*map(str, arguments), "--url", url])
        except SystemExit as stop:  # argparse's way to end
            code = stop.code
        return code, *capsys.readouterr()

    return run_main


@pytest.fixture
def refuse(run, tmp_path):
    """Run the command, which must end with 2, one line of error, and nothing written."""

    def run_and_check(*arguments, **options):
        before = listing(tmp_path)
        code, out, err = run(*arguments, **options)
        assert (code, out) == (2, "")
        assert listing(tmp_path) == before
        lines = [line for line in err.splitlines() if not line.startswith("usage:")]
        assert len(lines) == 1, err
        return lines[0]

    return run_and_check


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


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
    assert "known.png has no unknown pixels: it is the alpha, no server was asked" in out
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
    trimap[1000:5000] = 128
    write_image("photo.png", image)
    write_image("trimap.png", trimap)
    code, _, err = run("photo.png", "trimap.png", "-o", "alpha.png")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_trimap("alpha.png"), np.where(trimap == 255, 255, 77))


# Bad input: exit code 2, one line, nothing written (the fixture `refuse` checks all three).


def test_missing_photo(refuse, files):
    assert "nosuch.jpg: no such file" in refuse("nosuch.jpg", files[1], "-o", "alpha.png")


def test_missing_trimap_file(refuse, files):
    assert "nosuch.png: no such file" in refuse(files[0], "nosuch.png", "-o", "alpha.png")


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
    save("photo.jpg", cv2.imread(str(files[0])))
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


def test_trimap_that_is_a_photo(refuse, files):
    assert "photo.png: looks like" in refuse(files[0], files[0], "-o", "alpha.png")


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


@pytest.mark.parametrize("taken", ["photo.png", "trimap.png", "./photo.png"])
def test_inputs_are_not_overwritten(refuse, files, taken):
    assert "is another file of this command" in refuse(*files, "-o", taken)


def test_outputs_do_not_overwrite_each_other(refuse, files):
    assert "is another file" in refuse(*files, "-o", "out.png", "--cutout", "out.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "trimap.png"], "nothing to write"),
        (["photo.png", "-o", "alpha.png"], "no TRIMAP for photo.png"),
        (["photo.png", "trimap.png", "--composite", "out.png"], "need each other"),
        (["photo.png", "trimap.png", "-o", "a.png", "--background", "b.png"], "need each other"),
        (["photo.png", "trimap.png", "-o", "a.png", "--timeout", "0"], "0 is not more than 0"),
        (["photo.png", "trimap.png", "-o", "a.png", "--timeout", "soon"], "invalid float value"),
        (["photo.png", "trimap.png", "-o", "a.png", "--jobs", "2"], "are for many photos"),
    ],
)
def test_wrong_usage(refuse, files, arguments, message):
    assert message in refuse(*arguments)


def test_wrong_address(refuse, files):
    error = refuse(*files, "-o", "alpha.png", url="http://localhost")
    assert "'http://localhost', expected host:port" in error


# The server fails: exit code 1, one line, nothing written.


def test_server_down(run, files):
    code, out, err = run(*files, "-o", "alpha.png", "--timeout", 0.3, url=NOBODY)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: no server at {NOBODY} for 0.3 s")
    assert err.count("\n") == 1
    assert not Path("alpha.png").exists()


def test_wrong_model(run, files, launch_standin):
    server = launch_standin(name="other")
    code, out, err = run(*files, "-o", "alpha.png", url=server.grpc_url)
    assert (code, out) == (1, "")
    assert "does not serve the model 'dim'" in err
    assert err.count("\n") == 1
    assert not Path("alpha.png").exists()


def test_server_that_dies_half_way(run, files, launch_standin, kill):
    server = launch_standin(seconds=60)
    with ThreadPoolExecutor() as pool:
        arguments = (*files, "-o", "alpha.png", "--timeout", 2, "--quiet")
        result = pool.submit(run, *arguments, url=server.grpc_url)
        time.sleep(0.5)
        assert not result.done()
        kill(server)
        code, out, err = result.result()
    assert (code, out) == (1, "")
    assert err.startswith(f"error: no server at {server.grpc_url}")
    assert err.count("\n") == 1
    assert not Path("alpha.png").exists()


# As a program.


def test_runs_as_a_file_from_anywhere(standin, files, tmp_path):
    command = [sys.executable, SCRIPT, *files, "-o", "alpha.png", "--url", standin.grpc_url]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "image": str(files[0]),
        "trimap": str(files[1]),
        "alpha": "alpha.png",
        "status": "written",
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
