"""Real files, good, odd and broken ones, go through the reader."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from matting import images
from matting.images import (
    check_writable,
    read_cutout,
    read_gray,
    read_image,
    read_photo,
    read_trimap,
    write_image,
)

FORMATS = (".png", ".jpg", ".webp", ".tif", ".bmp")
LOSSLESS = (".png", ".webp", ".tif", ".bmp")


def store(path: Path, pixels: np.ndarray) -> bytes:
    """Write BGR pixels by OpenCV alone, and return the file's bytes."""
    assert cv2.imwrite(str(path), pixels)
    return path.read_bytes()


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# ---- what is fine


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_colour_order_survives_a_round_trip(tmp_path: Path, photo: np.ndarray, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", photo)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), photo)
    stored = cv2.imread(str(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(stored[..., ::-1], photo)


def test_jpeg_round_trip_is_close(tmp_path: Path, photo: np.ndarray) -> None:
    write_image(tmp_path / "a.jpg", photo)
    difference = cv2.absdiff(read_image(tmp_path / "a.jpg"), photo)
    assert difference.mean() < 2  # measured 1.56: chroma is stored at half the size


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_every_grey_value_is_kept(tmp_path: Path, suffix: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / f"a{suffix}"
    write_image(path, ramp)
    np.testing.assert_array_equal(read_gray(path), ramp)
    np.testing.assert_array_equal(read_image(path), np.dstack([ramp] * 3))
    write_image(path, np.dstack([ramp] * 3))
    np.testing.assert_array_equal(read_trimap(path), ramp)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_rgba_is_written_and_alpha_dropped_on_reading(
    tmp_path: Path, photo: np.ndarray, suffix: str
) -> None:
    alpha = np.full(photo.shape[:2], 100, np.uint8)
    path = tmp_path / f"a{suffix}"
    write_image(path, np.dstack([photo, alpha]))
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., 3], alpha)
    np.testing.assert_array_equal(read_image(path), photo)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_is_scaled_to_the_nearest_8_bit_value(tmp_path: Path, suffix: str) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    nearest = ((every.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    store(path, every)
    np.testing.assert_array_equal(read_gray(path), nearest)
    store(path, np.dstack([every, every.T, every[::-1]]))
    np.testing.assert_array_equal(read_image(path)[..., 2], nearest)


def test_cmyk_jpeg(data: Path) -> None:
    patches = read_image(data / "images/cmyk.jpg")[8, [4, 12, 20, 28]].astype(int)
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]])
    assert abs(patches - expected).max() <= 3
    assert read_gray(data / "images/cmyk.jpg").shape == (16, 32)


def orientation_block(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def with_orientation(data: bytes, orientation: int) -> bytes:
    """Insert an EXIF orientation into a JPEG or PNG."""
    block = orientation_block(orientation)
    if data.startswith(b"\xff\xd8"):
        segment = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:33] + chunk + data[33:]


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_rotation_applies_to_photo_and_trimap(
    tmp_path: Path, photo: np.ndarray, suffix: str, orientation: int
) -> None:
    plain, turned = tmp_path / f"plain{suffix}", tmp_path / f"turned{suffix}"
    turned.write_bytes(with_orientation(store(plain, photo), orientation))
    for reader in (read_image, read_gray):
        np.testing.assert_array_equal(reader(turned), UPRIGHT[orientation](reader(plain)))
    for pixels in (photo[..., 0], np.dstack([photo[..., 0]] * 3)):
        turned.write_bytes(with_orientation(store(plain, pixels), orientation))
        expected = UPRIGHT[orientation](read_trimap(plain))
        np.testing.assert_array_equal(read_trimap(turned), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_tiff_is_turned_once(tmp_path: Path, photo: np.ndarray, orientation: int) -> None:
    grey = np.ascontiguousarray(photo[..., 0])
    for pixels in (grey, grey * np.uint16(257), photo):
        picture = encoded(Image.fromarray(pixels), "TIFF", tiffinfo={0x112: orientation})
        (tmp_path / "a.tif").write_bytes(picture)
        expected = UPRIGHT[orientation](photo if pixels is photo else grey)
        read = (read_image if pixels is photo else read_trimap)(tmp_path / "a.tif")
        np.testing.assert_array_equal(read, expected)


LONG_BLOCK = b"MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x112, 4, 1, 6, 0)
CUT_BLOCK = b"MM\0*" + struct.pack(">IHHHIHH", 8, 9, 0x112, 3, 1, 6, 0)  # says it has nine fields
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"


@pytest.mark.parametrize(
    "segments",
    [
        [XMP, b"Exif\0\0" + orientation_block(6)],
        [b"Exif\0\0" + LONG_BLOCK],
        [b"Exif\0\0" + CUT_BLOCK],
    ],
    ids=["after XMP", "as a LONG", "in a damaged block"],
)
def test_a_jpeg_is_turned_wherever_it_says_so(
    tmp_path: Path, photo: np.ndarray, segments: list[bytes]
) -> None:
    data = store(tmp_path / "plain.jpg", photo)
    for content in reversed(segments):
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]
    (tmp_path / "turned.jpg").write_bytes(data)
    turned = read_photo(tmp_path / "turned.jpg")
    plain = read_image(tmp_path / "plain.jpg")
    np.testing.assert_array_equal(turned.pixels, UPRIGHT[6](plain))
    write_image(tmp_path / "again.jpg", turned.pixels, turned.metadata)
    assert read_image(tmp_path / "again.jpg").shape == turned.pixels.shape


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        *[("1", kind, {}) for kind in ("PNG", "BMP", "TIFF")],
        *[("P", kind, {}) for kind in ("PNG", "BMP", "TIFF")],
        *[("LA", kind, {}) for kind in ("PNG", "TIFF")],
        *[("RGBA", kind, {}) for kind in ("PNG", "TIFF", "WEBP")],
        ("L", "JPEG", {"quality": 20}),
        ("RGB", "JPEG", {"quality": 20}),
        ("RGB", "WEBP", {"quality": 5}),  # its colours differ by 1
        ("CMYK", "JPEG", {"quality": 20}),
        ("I;16", "PNG", {}),
        ("I;16", "TIFF", {}),
    ],
)
def test_grey_of_all_kinds_is_a_trimap(
    tmp_path: Path, photo: np.ndarray, mode: str, kind: str, options: dict[str, int]
) -> None:
    trimap = Image.fromarray(photo[..., 0] // 100 * np.uint8(127))
    if mode == "I;16":
        trimap = Image.fromarray(np.asarray(trimap) * np.uint16(257))
    elif mode == "CMYK":
        trimap = trimap.convert("RGB").convert(mode)
    else:
        trimap = trimap.convert(mode)
    (tmp_path / "a").write_bytes(encoded(trimap, kind, **options))
    np.testing.assert_array_equal(read_trimap(tmp_path / "a"), read_gray(tmp_path / "a"))


def test_a_trimap_in_colour_is_refused(
    tmp_path: Path, photo: np.ndarray, refusal: Callable[..., str]
) -> None:
    mask = photo[..., 0] > 127
    red = Image.fromarray(np.dstack([mask * np.uint8(255), *[np.zeros_like(photo[..., 0])] * 2]))
    for kind, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "P"), ("TIFF", "RGB")):
        (tmp_path / "a").write_bytes(encoded(red.convert(mode), kind))
        assert "is in colour; expected grey" in refusal(read_trimap, tmp_path / "a")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_mask_in_the_alpha_channel_is_refused(
    tmp_path: Path, photo: np.ndarray, kind: str, refusal: Callable[..., str]
) -> None:
    for colours in (photo, np.zeros_like(photo)):
        picture = Image.fromarray(np.dstack([colours, photo[..., 0] // 128 * np.uint8(255)]))
        (tmp_path / "a").write_bytes(encoded(picture, kind, **{"lossless": True}))
        assert "is in the alpha channel; save that channel as grey" in refusal(
            read_trimap, tmp_path / "a"
        )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colours_below_alpha_are_as_stored(tmp_path: Path, photo: np.ndarray, kind: str) -> None:
    alpha = photo[::-1, :, 0] // 128 * np.uint8(200)
    picture = Image.fromarray(np.dstack([photo, alpha]))
    (tmp_path / "a").write_bytes(encoded(picture, kind, lossless=True, exact=True))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), photo)
    for read, stored in zip(read_cutout(tmp_path / "a"), (photo, alpha), strict=True):
        np.testing.assert_array_equal(read, stored)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (5, 200), (200, 5)])
def test_extreme_sizes(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, np.full((*size, 3), 77, np.uint8))
    assert (abs(read_image(path).astype(int) - 77) <= 1).all()
    assert read_image(path).shape == (*size, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, photo: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    data = store(path, photo)
    before = read_image(path)
    path.write_bytes(data + b"appended by a phone" * 100)
    np.testing.assert_array_equal(read_image(path), before)


# ---- what is not


def test_missing_file(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "no such file" in refusal(read_image, tmp_path / "a.png")


def test_folder(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "is a folder" in refusal(read_image, tmp_path)


def test_name_that_cannot_be(tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = tmp_path / ("a" * 300 + ".png")
    assert "too long" in refusal(read_image, path)
    assert "too long" in refusal(check_writable, path)
    assert "too long" in refusal(write_image, path, np.zeros((2, 2), np.uint8))


def test_zero_bytes(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "a.png").touch()
    assert "0 bytes" in refusal(read_trimap, tmp_path / "a.png")


def test_not_an_image(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "a.png").write_text("no image at all")
    assert "expected PNG, JPEG" in refusal(read_image, tmp_path / "a.png")


def test_no_permission(unprivileged_folder: Path, refusal: Callable[..., str]) -> None:
    path = unprivileged_folder / "a.png"
    write_image(path, np.zeros((2, 2), np.uint8))
    path.chmod(0)
    assert "permissions" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("suffix", "progressive"), [*((suffix, 0) for suffix in FORMATS), (".jpg", 1)]
)
def test_cut_anywhere(
    tmp_path: Path,
    photo: np.ndarray,
    suffix: str,
    progressive: int,
    capfd: pytest.CaptureFixture[str],
    refusal: Callable[..., str],
) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive] if suffix == ".jpg" else []
    data = cv2.imencode(suffix, photo, options)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    lengths = {*np.linspace(16, len(data) - 20, 50, dtype=int)}
    for length in lengths | {len(data) - missing for missing in (1, 2, 3, 8, 12)}:
        path.write_bytes(data[:length])
        for reader in (read_image, read_gray):
            assert "cut short" in refusal(reader, path)
    assert capfd.readouterr().err == ""  # no decoder's own words on the terminal


def test_png_with_a_wrong_byte(
    tmp_path: Path, photo: np.ndarray, refusal: Callable[..., str]
) -> None:
    data = bytearray(store(tmp_path / "a.png", photo))
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    assert "damaged" in refusal(read_image, tmp_path / "a.png")


@pytest.mark.parametrize("suffix", FORMATS)
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, np.zeros((100, 101), np.uint8))
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 101)
    assert read_image(path).shape == (100, 101, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 101 - 1)
    assert "101 x 100 pixels" in refusal(read_image, path)


def test_small_file_that_claims_900_megapixels(tmp_path: Path, refusal: Callable[..., str]) -> None:
    data = bytearray(store(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    (tmp_path / "a.jpg").write_bytes(data)
    assert "at most 200 megapixels" in refusal(read_image, tmp_path / "a.jpg")


def test_opencvs_log_comes_back_when_the_last_thread_leaves():
    """Whoever enters first need not leave first."""
    before = images.opencv_log.getLogLevel()
    first, second = images.silent_opencv(), images.silent_opencv()
    for one in (first, second):
        one.__enter__()
    levels = []
    for one in (first, second):
        levels.append(images.opencv_log.getLogLevel())
        one.__exit__(None, None, None)
    assert levels == [0, 0] != [before, before]
    assert images.opencv_log.getLogLevel() == before
