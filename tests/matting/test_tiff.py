"""TIFFs of the kinds that are not read, or would be read wrongly."""

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from matting import exif
from matting.images import read_gray, read_image, read_trimap, to_depth


def test_float_pixels(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tif"), np.ones((4, 4, 3), np.float32))
    assert "float32" in refusal(read_image, tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [{"compression": "zstd"}, {"compression": "lzma"}, {"mode": "F"}])
def test_tiff_of_a_kind_that_is_not_read(
    tmp_path: Path, photo: np.ndarray, kind: dict[str, str], refusal: Callable[..., str]
) -> None:
    picture = Image.fromarray(photo).convert(kind.get("mode"))
    picture.save(tmp_path / "a.tif", compression=kind.get("compression"))
    assert "save it with 8 or 16 bits" in refusal(read_image, tmp_path / "a.tif")


def deep_tiff(pixels: np.ndarray, photometric: int, planes: int) -> bytes:
    """Encode uint16 grey or RGB, by the format's definition alone."""
    height, width = pixels.shape[:2]
    channels = pixels.size // (height * width)
    parts = channels if planes == exif.SEPARATE else 1
    stored = pixels.reshape(height * width * channels // parts, parts).T.tobytes()
    sizes = [len(stored) // parts] * parts
    places = [8 + size * part for part, size in enumerate(sizes)]
    fields = {256: [width], 257: [height], 258: [16] * channels, 259: [1], 262: [photometric]}
    fields |= {273: places, 277: [channels], 278: [height], 279: sizes, 284: [planes]}
    directory = {
        tag: exif.Field(exif.SHORT, np.array(numbers, "<u2").tobytes())
        for tag, numbers in fields.items()
    }
    start = 8 + len(stored)
    return b"II*\0" + struct.pack("<I", start) + stored + exif.write_directory(directory, start)


def test_several_alpha_channels(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "a.tif").write_bytes(deep_tiff(np.zeros((9, 9, 5), np.uint16), 2, 1))
    assert "with at most one alpha channel" in refusal(read_image, tmp_path / "a.tif")


def test_deep_tiff_that_would_be_read_wrongly_is_refused(
    tmp_path: Path, photo: np.ndarray, refusal: Callable[..., str]
) -> None:
    path, deep = tmp_path / "a.tif", photo * np.uint16(257)
    for pixels, read in ((deep, read_image), (deep[..., 0], read_trimap)):
        photometric = 2 if pixels is deep else 1
        path.write_bytes(deep_tiff(pixels, photometric, 1))
        np.testing.assert_array_equal(read(path), to_depth(pixels, np.uint8))
    path.write_bytes(deep_tiff(deep[..., 0], 1, exif.SEPARATE))  # one plane is one plane
    np.testing.assert_array_equal(read_trimap(path), photo[..., 0])
    path.write_bytes(deep_tiff(deep, 2, exif.SEPARATE))
    assert "save it interleaved (per pixel), or as .png" in refusal(read_image, path)
    path.write_bytes(deep_tiff(deep[..., 0], exif.WHITE_IS_ZERO, 1))
    for read in (read_image, read_gray, read_trimap):
        assert "stores white as 0; save it with black as 0" in refusal(read, path)


def test_lab_is_refused(tmp_path: Path, photo: np.ndarray, refusal: Callable[..., str]) -> None:
    to_lab = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
    lab = ImageCms.profileToProfile(Image.fromarray(photo), *to_lab, outputMode="LAB")
    lab.save(tmp_path / "a.tif")
    assert "is in L*a*b* colours; save it in RGB" in refusal(read_image, tmp_path / "a.tif")


@pytest.mark.parametrize("tags", [{254: 1}, {254: 0, 50706: b"\1\4\0\0"}])
def test_raws_are_refused_not_their_previews_read(
    tmp_path: Path, photo: np.ndarray, tags: dict, refusal: Callable[..., str]
) -> None:
    """As a .nef or .arw begins, and as a .dng does."""
    Image.fromarray(photo).save(tmp_path / "a.tif", tiffinfo={254: 0})
    assert read_image(tmp_path / "a.tif").shape == photo.shape
    Image.fromarray(photo).save(tmp_path / "a.nef", "TIFF", tiffinfo=tags)
    message = refusal(read_image, tmp_path / "a.nef")
    assert "its format is camera raw" in message and "convert it first" in message


def test_bigtiff(tmp_path: Path, photo: np.ndarray, refusal: Callable[..., str]) -> None:
    Image.fromarray(photo).save(tmp_path / "a.tif", big_tiff=True)
    assert "not BigTIFF" in refusal(read_image, tmp_path / "a.tif")
