"""IPTC-IIM, which captioned photos before XMP did: numbered texts, one after another.

Sources: IPTC-NAA, Information Interchange Model, version 4.2; Adobe, Photoshop File Formats
Specification, for the image resources that a JPEG holds it in.
"""

import contextlib
import re
import struct

TITLE, KEYWORDS, BYLINE, CREDIT, COPYRIGHT, CAPTION = 5, 25, 80, 110, 116, 120
"""Data sets of record 2, which describes the photo."""
LARGEST = 2**18
"""Bytes that are read. The texts of a photo take a few thousand."""
_LONGEST = 32767
_RESOURCE = 0x0404
_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


def from_photoshop(resources: bytes) -> bytes:
    """Return the IPTC-IIM among Photoshop's image resources; empty if there is none."""
    offset = 0
    with contextlib.suppress(struct.error):
        while resources[offset : offset + 4] == b"8BIM":
            number, name_length = struct.unpack_from(">HB", resources, offset + 4)
            begin = offset + 8 + name_length // 2 * 2  # its length and itself, padded
            (length,) = struct.unpack_from(">I", resources, begin)
            if number == _RESOURCE:
                return resources[begin + 4 : begin + 4 + length]
            offset = begin + 4 + length + length % 2
    return b""


def read_texts(data: bytes) -> dict[int, list[str]]:
    """Return the texts of record 2 by the numbers of their data sets, as far as they are sound.

    A preview, which is longer than a text can be and comes last, ends the reading.
    """
    data = data[:LARGEST]
    texts: dict[int, list[str]] = {}
    offset = 0
    with contextlib.suppress(struct.error):
        while data[offset : offset + 1] == b"\x1c":
            record, number, length = struct.unpack_from(">BBH", data, offset + 1)
            begin, offset = offset + 5, offset + 5 + length
            if length > _LONGEST or offset > len(data):
                break
            if record == 2 and (text := _decode(data[begin:offset])):
                texts.setdefault(number, []).append(text)
    return texts


def _decode(text: bytes) -> str:
    """Decode UTF-8, or else Latin-1: not all who write UTF-8 mark it (1:90), and few mark more."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    return _CONTROLS.sub("", decoded).strip()
