"""What an image file says about itself before a pixel is decoded: format, size, whole or cut.

PNG, JPEG, WebP, TIFF (classic) and BMP are known. Everything here looks at bytes only, so a file of
a few kilobytes that claims gigapixels is found out before any memory is spent on it.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from matting import exif

OTHER_FORMATS = {
    "HEIC": rb"....ftyp(hei|hev|mif1|msf1)",
    "AVIF": rb"....ftypavi",
    "JPEG XL": rb"\xff\x0a|....JXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|....jP  ",
    "GIF": rb"GIF8",
    "PDF": rb"%PDF",
    "Photoshop": rb"8BPS",
    "BigTIFF": rb"II\+\0|MM\0\+",
    "OpenEXR": rb"v/1\x01",
    "camera raw": rb"....ftypcrx|FUJIFILM|II[RU].|MMOR|II\*\0(\x10\0\0\0CR\x02|....IIII.waR)",
}
"""Formats that people try, and how their files begin; some cameras' raws are TIFFs besides."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Markers that carry a frame's size: all of SOF0..SOF15 but DHT (C4), JPG (C8) and DAC (CC).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_SCAN = 0xDA
"""The marker before the pixels."""
JPEG_SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
"""Markers that a length follows. To decoders others are two bytes to skip, or an error."""
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_NUMBERS = {exif.SHORT: "H", exif.LONG: "I"}
"""As `struct` writes them."""
OS2_HEADER = 12
"""Bytes in the second header of a BMP whose sizes have 16 bits each."""


class HeaderError(ValueError):
    """The header, or the file's outer structure, is damaged or cut short."""


def image_format(data: bytes) -> str | None:
    """Name the format from the first 16 bytes: PNG, JPEG, WebP, TIFF, BMP, or None if unknown."""
    if other_format(data):
        return None
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def other_format(data: bytes) -> str | None:
    """Name one of `OTHER_FORMATS` from the first 16 bytes; None if it is none of them."""
    beginnings = OTHER_FORMATS.items()
    return next((name for name, begin in beginnings if re.match(begin, data, re.DOTALL)), None)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels as the header states them, before any EXIF rotation.

    PNG is also checked as a whole (every chunk's CRC, the end chunk), WebP and BMP for their
    length. JPEG and TIFF state no total length: their decoders notice what is missing.

    Raises
    ------
    HeaderError
        The format is unknown, or the file is damaged or cut short.
    """
    readers = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp, "TIFF": _tiff, "BMP": _bmp}
    name = image_format(data)
    if name is None:
        raise HeaderError("the format is unknown")
    try:
        return readers[name](data)
    except (struct.error, IndexError) as error:
        raise HeaderError("it ends inside its header") from error


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yield each chunk's kind, content, and checksum as it is stated, to the end chunk.

    Raises
    ------
    struct.error
        The file ends before.
    """
    view = memoryview(data)
    offset, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, offset)
        begin, end = offset + 8, offset + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        yield kind, view[begin:end], checksum
        offset = end + 4


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the content of each segment before the pixels.

    Raises
    ------
    HeaderError
        There is no marker where one has to be.
    IndexError, struct.error
        The file ends before its pixels.
    """
    offset = 2
    while (marker := data[offset + 1]) != JPEG_SCAN:
        if data[offset] != 0xFF:
            raise HeaderError("a marker is missing")
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker not in JPEG_SEGMENTS:
            raise HeaderError(f"its marker {marker:02X} is not allowed before the pixels")
        (length,) = struct.unpack_from(">H", data, offset + 2)
        yield marker, data[offset + 4 : offset + 2 + length]
        offset += 2 + length


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    for kind, content, checksum in png_chunks(data):
        if zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise HeaderError(f"the checksum of its chunk {kind!r} is wrong")
    return height, width


def _jpeg(data: bytes) -> tuple[int, int]:
    for marker, content in jpeg_segments(data):
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, 1)
            return height, width
    raise HeaderError("it does not state its width and height")


def _webp(data: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", data, 4)
    if len(data) < length + 8:
        raise HeaderError("it is shorter than its header says")
    kind = data[12:16]
    if kind == b"VP8X":  # extended: 24-bit width - 1, height - 1
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":  # lossless: 14-bit width - 1, height - 1
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":  # lossy: 14 bits each, the upper two are a scale
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, 26))
    else:
        raise HeaderError(f"its first chunk {kind!r} is unknown")
    return height, width


def _tiff(data: bytes) -> tuple[int, int]:
    order, sizes = exif.byte_order(data), {}
    for tag, entry in exif.entries(data):
        if tag in (TIFF_WIDTH, TIFF_HEIGHT):
            kind, length = struct.unpack_from(order + "HI", data, entry + 2)
            # Stated twice or oddly, it could be one size here and another one to the decoder.
            if tag in sizes or kind not in TIFF_NUMBERS or length != 1:
                raise HeaderError("its width and height are not stated once, as a number each")
            (sizes[tag],) = struct.unpack_from(order + TIFF_NUMBERS[kind], data, entry + 8)
    if len(sizes) < 2:
        raise HeaderError("it does not state its width and height")
    return sizes[TIFF_HEIGHT], sizes[TIFF_WIDTH]


def _bmp(data: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", data, 2)
    if len(data) < length:
        raise HeaderError("it is shorter than its header says")
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == OS2_HEADER else "<ii", data, 18)
    return abs(height), abs(width)  # a negative height means rows from top to bottom
