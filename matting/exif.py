"""EXIF blocks and TIFF files are made of the same directories: reading, changing and writing them.

Everything here looks at bytes only. Directories are written in little-endian order, as OpenCV's
TIFF files are.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import NamedTuple, Union

import numpy as np

ORIENTATION, EXTRA_SAMPLES, MAKER_NOTE, ICC_PROFILE = 0x0112, 338, 0x927C, 34675
XMP, IPTC = 700, 33723
UPRIGHT, PREMULTIPLIED_ALPHA, STRAIGHT_ALPHA = 1, 1, 2
PHOTOMETRIC, SAMPLES, PLANAR_CONFIGURATION = 262, 277, 284
NEW_SUBFILE_TYPE, DNG_VERSION = 254, 50706
REDUCED = 1
WHITE_IS_ZERO, CIELAB, SEPARATE = 0, 8, 2
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
INCH, CENTIMETRE = 2, 3
CENTIMETRES_PER_INCH = 2.54
LINKS = (0x8769, 0x8825, 0xA005)
"""Fields that lead to a directory of their own: EXIF's, the place's, interoperability's."""
RATING, RATING_PERCENT, WINDOWS = 18246, 18249, range(40091, 40096)
DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
DESCRIPTIVE += (RATING, RATING_PERCENT, *WINDOWS, *LINKS)
"""What a file says of the photo, not of its own pixels: title, camera, resolution, author."""

BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
_UNITS = dict(enumerate((1, 1, 2, 4, 4, 1, 1, 2, 4, 4, 4, 8), start=1))
"""Bytes that change places together between byte orders, for each kind of field."""
_FRACTIONS = (5, 10)  # two numbers each
_DEEPEST = 3


class Field(NamedTuple):
    """One entry of a directory: its kind, and its values as little-endian bytes or a directory."""

    kind: int
    value: Union[bytes, "Directory"]


Directory = dict[int, Field]
"""Fields by tag."""


def read_block(data: bytes) -> Directory:
    """Read the first directory of an EXIF block or a TIFF file, and those that it leads to.

    Fields of an unknown kind, and those that cannot be, are left out: outside of the data, there
    twice, or together larger than the data.

    Raises
    ------
    struct.error
        The data end inside a directory.
    """
    return _read(data, _start(data), byte_order(data), _DEEPEST)


def write_block(directory: Directory) -> bytes:
    """Return a block that holds one directory and those that it leads to."""
    return b"II*\0" + struct.pack("<I", 8) + write_directory(directory, 8)


def write_directory(directory: Directory, start: int) -> bytes:
    """Return a directory's bytes for a place that begins `start` bytes into a block or file."""
    head = bytearray(struct.pack("<H", len(directory)))
    body = bytearray()
    free = start + 2 + 12 * len(directory) + 4
    for tag, (kind, value) in sorted(directory.items()):
        place = free + len(body)
        if isinstance(value, dict):
            head += struct.pack("<HHII", tag, LONG, 1, place)
            body += write_directory(value, place)
            continue
        count = len(value) // _size(kind)
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", place)
        head += struct.pack("<HHI", tag, kind, count) + inline
        if len(value) > 4:
            body += value + b"\0" * (len(value) % 2)  # directories begin at even places
    return bytes(head + struct.pack("<I", 0) + body)


def orientation(block: bytes) -> int:
    """Return the orientation that an EXIF block states, 1 to 8; 1 if none."""
    stated = number(block, ORIENTATION)
    return stated if 1 <= stated <= 8 else UPRIGHT


def number(block: bytes, tag: int) -> int:
    """Return the one number, SHORT or LONG, of a field of the first directory; 0 if none.

    The block may be damaged after it.
    """
    order = byte_order(block)
    with suppress(struct.error):
        for found, entry in entries(block):
            if found == tag:
                (kind,) = struct.unpack_from(order + "H", block, entry + 2)
                size = "I" if kind == LONG else "H"
                return int(struct.unpack_from(order + size, block, entry + 8)[0])
    return 0


def resolution(block: bytes) -> float:
    """Return the pixels per inch, across and down, that a sound block states; 0 if none."""
    directory = read_block(block)
    across, down = directory.get(X_RESOLUTION), directory.get(Y_RESOLUTION)
    if across != down or across is None or across.kind != RATIONAL:
        return 0
    if not isinstance(across.value, bytes) or len(across.value) != 8:
        return 0
    numerator, denominator = struct.unpack("<II", across.value)
    unit = number(block, RESOLUTION_UNIT) or INCH
    per_inch = {INCH: 1, CENTIMETRE: CENTIMETRES_PER_INCH}.get(unit, 0)
    return numerator / denominator * per_inch if denominator else 0


def resolution_fields(pixels_per_inch: float) -> Directory:
    """Return the fields that state a resolution."""
    value = Fraction(pixels_per_inch).limit_denominator(100)
    field = Field(RATIONAL, struct.pack("<II", *value.as_integer_ratio()))
    unit = Field(SHORT, struct.pack("<H", INCH))
    return {X_RESOLUTION: field, Y_RESOLUTION: field, RESOLUTION_UNIT: unit}


def say_premultiplied(tiff: bytes) -> bytes:
    """Return a TIFF file with straight alpha that says its colours are multiplied with it.

    libtiff, which would multiply those of 8 bits, then leaves them as they are stored.
    """
    order = byte_order(tiff)
    straight = EXTRA_SAMPLES, SHORT, 1, STRAIGHT_ALPHA
    with suppress(struct.error):
        for _, entry in entries(tiff):
            if struct.unpack_from(order + "HHIH", tiff, entry) == straight:
                changed = bytearray(tiff)
                struct.pack_into(order + "H", changed, entry + 8, PREMULTIPLIED_ALPHA)
                return bytes(changed)
    return tiff


def descriptive(directory: Directory) -> Directory:
    """Return what a block's or file's first directory says of the photo: see `DESCRIPTIVE`.

    Previews are left out, since they show the background that a cut-out leaves out, and so are
    makers' notes: they hold previews, too, and places counted from the beginning of the block.
    """
    return _without_maker_notes({tag: directory[tag] for tag in DESCRIPTIVE if tag in directory})


def entries(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the tag of each entry of the first directory, and where the entry begins.

    Raises
    ------
    struct.error
        The data end before the directory does.
    """
    order = byte_order(data)
    for entry in _span(data, _start(data), order):
        yield struct.unpack_from(order + "H10x", data, entry)[0], entry


def byte_order(data: bytes) -> str:
    """Return the order of the bytes in a block's or file's numbers, as `struct` writes it."""
    return ">" if data[:2] == b"MM" else "<"


def _without_maker_notes(directory: Directory) -> Directory:
    kept = {}
    for tag, field in directory.items():
        if isinstance(field.value, dict):
            field = Field(field.kind, _without_maker_notes(field.value))
        if tag != MAKER_NOTE:
            kept[tag] = field
    return kept


def _start(data: bytes) -> int:
    """Return where the first directory begins."""
    return int(struct.unpack_from(byte_order(data) + "I", data, 4)[0])


def _span(data: bytes, start: int, order: str) -> range:
    """Return where the entries of a directory begin, and where the last ends."""
    (count,) = struct.unpack_from(order + "H", data, start)
    return range(start + 2, start + 2 + 12 * count, 12)


def _read(data: bytes, start: int, order: str, depth: int) -> Directory:
    directory: Directory = {}
    room = len(data)
    for entry in _span(data, start, order):
        tag, kind, number, place = struct.unpack_from(order + "HHII", data, entry)
        if tag in directory or kind not in _UNITS:
            continue
        if tag in LINKS:
            if depth:  # a directory may lead to itself
                directory[tag] = Field(LONG, _read(data, place, order, depth - 1))
            continue
        size = number * _size(kind)
        begin = entry + 8 if size <= 4 else place
        if size <= room and begin + size <= len(data):
            room -= size
            value = data[begin : begin + size]
            unit = 1 if tag == IPTC else _UNITS[kind]  # which is bytes, though often called LONG
            directory[tag] = Field(kind, _little_endian(value, order, unit))
    return directory


def _size(kind: int) -> int:
    return _UNITS[kind] * (2 if kind in _FRACTIONS else 1)


def _little_endian(value: bytes, order: str, unit: int) -> bytes:
    return np.frombuffer(value, f"{order}u{unit}").astype(f"<u{unit}").tobytes()
