"""Damaged files, by the thousand: the reader returns a picture or one line, and never dies.

    python -m pytest tests/matting/test_images_fuzz.py --hypothesis-profile=long

takes a hundred thousand of them, new ones with every run.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from matting import exif, images, iptc, xmp
from matting.headers import PNG_SIGNATURE, image_size
from matting.images import ImageError, read_photo, read_trimap
from matting.metadata import Metadata, insert_metadata, read_metadata

MAX_PIXELS = 1_000_000
"""A lower limit than the real one, so that a picture that just passes takes no half minute."""

ENCODINGS = [
    (".png", np.uint8, 3, []),
    (".png", np.uint8, 4, []),
    (".png", np.uint16, 1, []),
    (".png", np.uint8, 1, [cv2.IMWRITE_PNG_BILEVEL, 1]),
    (".jpg", np.uint8, 3, []),
    (".jpg", np.uint8, 1, []),
    (".jpg", np.uint8, 3, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
    (".webp", np.uint8, 3, []),
    (".webp", np.uint8, 4, [cv2.IMWRITE_WEBP_QUALITY, 50]),
    (".tif", np.uint8, 3, [cv2.IMWRITE_TIFF_COMPRESSION, 5]),  # LZW
    (".tif", np.uint16, 1, [cv2.IMWRITE_TIFF_COMPRESSION, 8]),  # Deflate
    (".tif", np.uint8, 1, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),  # none
    (".bmp", np.uint8, 3, []),
    (".bmp", np.uint8, 1, []),
]


def encode(suffix: str, dtype: type, channels: int, options: list[int]) -> bytes:
    limit = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, limit, (13, 17, channels), dtype)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def camera_file(format_: str) -> bytes:
    """A photo that lies on its side, with a profile and three directories of EXIF."""
    told = Image.Exif()
    told.update({exif.ORIENTATION: 6, 271: "a maker", 282: 300.0})
    told.get_ifd(0x8769)[36867] = "2026:01:02 03:04:05"
    told.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5)})
    file = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.new("RGB", (17, 13), "teal")
    picture.save(file, format_, icc_profile=profile, exif=told.tobytes())
    return file.getvalue()


WRITTEN = [encode(suffix, np.uint8, 3, []) for suffix in (".png", ".jpg", ".webp", ".tif")]
"""What metadata are put into."""
CAPTION = xmp.descriptive(b"", {iptc.TITLE: ["A cat"], iptc.KEYWORDS: ["cat", "grass"]})
WHOLE = [encode(*encoding) for encoding in ENCODINGS]
WHOLE += [camera_file(format_) for format_ in ("PNG", "JPEG", "WebP", "TIFF")]
WHOLE += [insert_metadata(file, Metadata(xmp=CAPTION)) for file in WRITTEN]

POSITIONS = st.one_of(st.integers(0, 60), st.integers(0, 2000))
"""Headers are short and matter most."""
VALUES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([0, 1, 255, 65535, 2**31 - 1, 2**32 - 1]).map(lambda n: n.to_bytes(4, "big")),
)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """One of the files with bytes replaced, put in, or left out, cut or with another's end."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        at, value = draw(POSITIONS) % len(data), draw(VALUES)
        kind = draw(st.sampled_from(["replace", "replace", "insert", "delete", "cut", "splice"]))
        if kind == "replace":
            data[at : at + len(value)] = value
        elif kind == "insert":
            data[at:at] = value
        elif kind == "delete":
            del data[at : at + len(value)]
        elif kind == "cut":
            del data[max(at, 1) :]
        else:
            data[at:] = draw(st.sampled_from(WHOLE))[at:]
        if not data:
            break
    if draw(st.booleans()):
        repair_checksums(data)  # else few PNG files would come to the decoder
    return bytes(data)


def repair_checksums(data: bytearray) -> None:
    if not data.startswith(PNG_SIGNATURE):
        return
    offset = len(PNG_SIGNATURE)
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        end = offset + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[offset + 4 : end]))
        offset = end + 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", MAX_PIXELS)
        yield tmp_path_factory.mktemp("fuzz") / "damaged"


@given(data=damaged_files())
def test_a_picture_or_one_line(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read, depths, shape in (
        (read_photo, (np.uint8, np.uint16), (3,)),
        (read_trimap, (np.uint8,), ()),
    ):
        try:
            found = read(path)
        except ImageError as error:
            assert "\n" not in str(error)
            continue
        if read is read_photo:
            check_metadata(found.metadata)
            found = found.pixels
        assert found.dtype in depths and found.shape[2:] == shape
        # What is decoded is what the header said, rotated at most: no other size gets past.
        assert sorted(found.shape[:2]) == sorted(image_size(data))


def check_metadata(kept: Metadata) -> None:
    """What is kept of a damaged file's says that it is upright, and can be written."""
    assert exif.orientation(kept.exif) == exif.UPRIGHT
    for file in WRITTEN:
        assert image_size(insert_metadata(file, kept)) == image_size(file)
    assert read_metadata(insert_metadata(WRITTEN[0], kept)) == kept
