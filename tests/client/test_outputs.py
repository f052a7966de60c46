"""What cut-outs and composites keep: 16 bits, straight colours, profile, EXIF, XMP, dpi."""

import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from client.connection import Matte
from client.job import Options, Pair, matte_pair
from client.request import Request
from matting.compositing import composite, cutout, fit_background
from matting.foreground import estimate_foreground
from matting.images import read_gray, read_photo, to_depth, write_image
from matting.metadata import Metadata

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def deep(files, picture):
    """The photo in 16 bits, as a file with a profile; its lower bytes are noise."""
    noise = np.random.default_rng(1).integers(0, 256, picture[0].shape, dtype=np.uint16)
    pixels = picture[0] * np.uint16(256) + noise
    write_image("deep.tif", pixels, Metadata(icc=PROFILE))
    return pixels


def stored(path):
    """Read as OpenCV does, RGB, any depth."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_in_16_bits_out(run, files, picture, expected_alpha, deep, suffix):
    outputs = ["-o", f"alpha{suffix}", "--cutout", f"cut{suffix}", "--composite", f"new{suffix}"]
    code, _, err = run("deep.tif", files[1], *outputs, "--background", "#ff8000")
    assert (code, err) == (0, "")
    alpha = expected_alpha(to_depth(deep, np.uint8), picture[1])  # the network saw 8 bits
    np.testing.assert_array_equal(read_gray(f"alpha{suffix}"), alpha)
    foreground = estimate_foreground(deep, alpha)
    assert foreground.dtype == np.uint16
    np.testing.assert_array_equal(stored(f"cut{suffix}"), cutout(foreground, alpha))
    np.testing.assert_array_equal(stored(f"cut{suffix}")[..., 3], alpha * np.uint16(257))
    orange = fit_background(np.array([[[255, 128, 0]]], np.uint8), *alpha.shape)
    np.testing.assert_array_equal(stored(f"new{suffix}"), composite(alpha, foreground, orange))
    assert stored(f"new{suffix}")[alpha == 0][0].tolist() == [65535, 128 * 257, 0]


def test_16_bits_into_formats_of_8(run, files, picture, expected_alpha, deep):
    code, _, err = run(
        *["deep.tif", files[1], "--cutout", "cut.webp"],
        *["--composite", "new.bmp", "--background", "#000"],
    )
    assert (code, err) == (0, "")
    alpha = expected_alpha(to_depth(deep, np.uint8), picture[1])
    foreground = to_depth(estimate_foreground(deep, alpha), np.uint8)
    visible = alpha > 0
    np.testing.assert_array_equal(stored("cut.webp")[visible][:, :3], foreground[visible])
    black = np.rint(foreground * (alpha[..., None] / 255))
    assert np.abs(stored("new.bmp") - black).max() <= 1


def test_a_background_of_16_bits_keeps_them(run, files, deep):
    known = np.zeros((37, 53), np.uint8)
    write_image("known.png", known)
    code, _, err = run(
        "deep.tif", "known.png", "--composite", "new.png", "--background", "deep.tif"
    )
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(stored("new.png"), deep)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_profile_and_exif_are_kept_and_the_turn_is_done(run, picture, suffix):
    block = Image.Exif()
    block[ExifTags.Base.Make] = "A camera"
    block[ExifTags.Base.Orientation] = 6
    sideways = np.ascontiguousarray(np.rot90(picture[0]))
    Image.fromarray(sideways).save("photo.jpg", exif=block, icc_profile=PROFILE)
    write_image("upright.png", picture[1])
    code, _, err = run(
        *["photo.jpg", "upright.png", "-o", f"alpha{suffix}", "--cutout", f"cut{suffix}"],
        *["--composite", "new.jpg", "--background", "#fff"],
    )
    assert (code, err) == (0, "")
    for path in (Path(f"cut{suffix}"), Path("new.jpg")):
        with Image.open(path) as made:
            assert made.size == (53, 37)
            assert made.info["icc_profile"] == PROFILE
            assert str(made.getexif()[ExifTags.Base.Make]).rstrip("\0") == "A camera"
            assert made.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert read_photo(f"alpha{suffix}").metadata == Metadata()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_rights_are_kept_and_a_preview_is_not(run, files, picture, suffix):
    packet = (
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' dc:rights="© Åsa" xmp:Thumbnails="old background"/></rdf:RDF>'
    ).encode()
    write_image("photo.jpg", picture[0], Metadata(xmp=packet))
    code, _, err = run(
        *["photo.jpg", "trimap.png", "-o", f"alpha{suffix}", "--cutout", f"cut{suffix}"],
        *["--composite", "new.jpg", "--background", "#fff"],
    )
    assert (code, err) == (0, "")
    for path in (f"cut{suffix}", "new.jpg"):
        assert "<dc:rights>© Åsa</dc:rights>" in read_photo(path).metadata.xmp.decode()
        assert b"old background" not in Path(path).read_bytes()
    assert read_photo(f"alpha{suffix}").metadata == Metadata()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_resolution_is_kept(run, files, picture, suffix):
    Image.fromarray(picture[0]).save("photo.jpg", dpi=(300, 300))
    code, _, err = run(
        *["photo.jpg", "trimap.png", "-o", f"alpha{suffix}", "--cutout", f"cut{suffix}"],
        *["--composite", "new.jpg", "--background", "#fff"],
    )
    assert (code, err) == (0, "")
    for path in (f"alpha{suffix}", f"cut{suffix}", "new.jpg"):
        with Image.open(path) as made:
            assert made.info["dpi"] == pytest.approx((300, 300), rel=1e-5)


def test_a_replaced_output_keeps_its_mode(run, files):
    assert run(*files, "-o", "alpha.png")[0] == 0
    Path("alpha.png").chmod(0o640)
    assert run(*files, "-o", "alpha.png")[0] == 0
    assert stat.S_IMODE(Path("alpha.png").stat().st_mode) == 0o640


def test_a_link_to_a_name_without_suffix(run, files, picture, expected_alpha):
    Path("alpha.png").symlink_to("alpha")
    code, _, err = run(*files, "-o", "alpha.png")
    assert (code, err) == (0, "")
    assert Path("alpha.png").is_symlink()
    np.testing.assert_array_equal(read_gray("alpha"), expected_alpha(*picture))


def test_a_composite_needs_a_background(files, standin, tmp_path):
    pair = Pair(*files, {"alpha": tmp_path / "a.png", "composite": tmp_path / "c.png"})
    with Matte(standin.grpc_url) as matte, pytest.raises(ValueError, match="background is None"):
        matte_pair(pair, matte, Options(), Request())
    assert not (tmp_path / "a.png").exists()
