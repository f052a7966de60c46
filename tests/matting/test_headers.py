"""Header sizes are the decoded sizes, and gigapixel claims are found without decoding."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from matting.headers import HeaderError, image_format, image_size, other_format

WEBP_LOSSY = [cv2.IMWRITE_WEBP_QUALITY, 50]
ENCODINGS = {
    "png": ("PNG", ".png", 3, []),
    "png grey": ("PNG", ".png", 1, []),
    "jpeg": ("JPEG", ".jpg", 3, []),
    "jpeg grey": ("JPEG", ".jpg", 1, []),
    "jpeg progressive": ("JPEG", ".jpg", 3, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "webp lossless": ("WebP", ".webp", 3, []),
    "webp lossy": ("WebP", ".webp", 3, WEBP_LOSSY),
    "webp lossy with alpha": ("WebP", ".webp", 4, WEBP_LOSSY),
    "tiff": ("TIFF", ".tif", 3, []),
    "bmp": ("BMP", ".bmp", 3, []),
}


def encoded(kind: str, height: int, width: int) -> bytes:
    _, suffix, channels, options = ENCODINGS[kind]
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("size", [(1, 1), (5, 200), (301, 77), (1, 3000)])
def test_size_is_that_of_the_picture(kind: str, size: tuple[int, int]) -> None:
    data = encoded(kind, *size)
    assert image_format(data) == ENCODINGS[kind][0]
    assert image_size(data) == size


@pytest.mark.parametrize(
    ("name", "kind"), [("AVIF", "AVIF"), ("GIF", "GIF"), ("PDF", "PDF"), ("JPEG 2000", "JPEG2000")]
)
def test_formats_that_are_not_read_are_named(name: str, kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 7)).save(file, kind)
    assert (image_format(file.getvalue()), other_format(file.getvalue())) == (None, name)


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("HEIC", b"\0\0\0\x24ftypheic"),
        ("HEIC", b"\0\0\0\x1cftypmif1"),
        ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
        ("Photoshop", b"8BPS\0\1"),
        ("OpenEXR", b"v/1\1\2\0\0\0"),
        ("camera raw", b"\0\0\0\x18ftypcrx "),
        ("camera raw", b"II*\0\x10\0\0\0CR\2\0"),
        ("camera raw", b"II*\0\x08\x0a\0\0IIIICwaR"),
        ("camera raw", b"IIU\0\x18\0\0\0"),
        ("camera raw", b"FUJIFILMCCD-RAW "),
    ],
)
def test_formats_are_named_by_how_real_files_begin(name: str, begin: bytes) -> None:
    assert (image_format(begin), other_format(begin)) == (None, name)


def test_big_endian_tiff() -> None:
    width = struct.pack(">HHIHH", 256, 3, 1, 640, 0)  # a SHORT
    height = struct.pack(">HHII", 257, 4, 1, 480)  # a LONG
    data = b"MM\0*" + struct.pack(">IH", 8, 2) + width + height
    assert image_format(data) == "TIFF"
    assert image_size(data) == (480, 640)


def test_a_bmp_of_os2_has_sizes_of_16_bits() -> None:
    pixels = bytes(4 * 16)  # rows are padded to multiples of four bytes
    header = struct.pack("<IHHHH", 12, 5, 4, 1, 24)
    data = b"BM" + struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26) + header + pixels
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image_size(data) == decoded.shape[:2] == (4, 5)


def tiff_entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


@pytest.mark.parametrize(
    "entries",
    [
        [tiff_entry(256, 4, 1, 50_000), tiff_entry(257, 4, 1, 50_000), tiff_entry(256, 4, 1, 1)],
        [tiff_entry(256, 1, 1, 7), tiff_entry(257, 4, 1, 7)],
        [tiff_entry(256, 4, 2, 7), tiff_entry(257, 4, 1, 7)],
    ],
    ids=["twice", "a byte", "a list"],
)
def test_tiff_that_states_its_size_oddly(entries: list[bytes]) -> None:
    """Of two widths libtiff takes the first: a gigapixel must not hide behind the last."""
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries)
    with pytest.raises(HeaderError, match="not stated once"):
        image_size(data)


def test_tiff_cut_in_its_last_entry() -> None:
    sizes = tiff_entry(256, 4, 1, 9) + tiff_entry(257, 4, 1, 7)
    data = b"II*\0" + struct.pack("<IH", 8, 3) + sizes + tiff_entry(258, 3, 1, 8)
    assert image_size(data) == (7, 9)
    for cut in range(1, 13):
        with pytest.raises(HeaderError, match="ends inside its header"):
            image_size(data[:-cut])


@pytest.mark.parametrize("kind", ENCODINGS)
def test_header_cut_anywhere(kind: str) -> None:
    """The first bytes either hold the size already or are refused; nothing else escapes."""
    data = encoded(kind, 9, 7)
    for length in range(0, min(len(data), 700)):
        try:
            assert image_size(data[:length]) == (9, 7)
        except HeaderError as error:
            assert "\n" not in str(error)


def test_png_with_a_wrong_byte() -> None:
    data = bytearray(encoded("png", 40, 40))
    data[len(data) // 2] ^= 1
    with pytest.raises(HeaderError, match="checksum"):
        image_size(bytes(data))


def test_png_that_claims_gigapixels() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 90_000, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, end)
    ]
    assert image_size(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)) == (90_000, 100_000)


def test_jpeg_with_fill_bytes_and_without_a_frame() -> None:
    data = encoded("jpeg", 40, 30)
    filled = data.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    assert image_size(filled) == (40, 30)
    scan = data.index(b"\xff\xda")
    with pytest.raises(HeaderError, match="does not state its width"):
        image_size(data[:2] + data[scan:])
    with pytest.raises(HeaderError, match="a marker is missing"):
        image_size(data[:20] + b"\0" + data[20:])  # between the first segment and the second


@pytest.mark.parametrize("marker", [0x00, 0x01, 0xD0, 0xD8])
def test_jpeg_with_two_sizes(marker: int) -> None:
    """Where a decoder skips a marker without a length, a segment can hide another size."""
    data = encoded("jpeg", 40, 30)
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 8, 8, 1, 1, 0)
    hidden = b"\xff\xe0" + struct.pack(">H", 2 + len(frame)) + frame
    # Taken for a segment, the marker would end at the hidden frame.
    two = data[:2] + bytes([0xFF, marker]) + b"\xff\xfb" + bytes(0xFFF9 - 4) + hidden + data[2:]
    with pytest.raises(HeaderError, match=f"its marker {marker:02X} is not allowed"):
        image_size(two)


def test_unknown_formats() -> None:
    for data in (b"", b"\x89PN", b"GIF89a", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE", b"plain text"):
        assert image_format(data) is None
        with pytest.raises(HeaderError, match="unknown"):
            image_size(data)
