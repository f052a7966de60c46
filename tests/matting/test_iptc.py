"""IPTC-IIM, and the image resources that hold it in a JPEG."""

import struct
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matting import iptc, xmp


def data_set(number: int, text: bytes, record: int = 2) -> bytes:
    return struct.pack(">BBBH", 0x1C, record, number, len(text)) + text


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    named = bytes([len(name)]) + name
    named += b"\0" * (len(named) % 2)
    padding = b"\0" * (len(content) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + named
        + struct.pack(">I", len(content))
        + (content + padding)
    )


def test_texts_by_their_numbers() -> None:
    data = data_set(90, b"\x1b%G", record=1) + data_set(iptc.TITLE, "Kätzchen".encode())
    data += data_set(iptc.KEYWORDS, b"cat") + data_set(iptc.KEYWORDS, b"grass")
    texts = {iptc.TITLE: ["Kätzchen"], iptc.KEYWORDS: ["cat", "grass"]}
    assert iptc.read_texts(data) == texts
    assert iptc.read_texts(data + b"\0\0\0") == texts
    assert iptc.read_texts(data + data_set(iptc.CREDIT, b"an agency")[:-1]) == texts
    assert iptc.read_texts(data + b"\x1c\2") == texts


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("Åsa".encode(), "Åsa"),
        ("Åsa".encode("latin-1"), "Åsa"),
        (b" two\r\nlines \0\0", "two\r\nlines"),
        (b"\x01a\x1bb\x7f" + "c\uffff".encode(), "abc"),
    ],
    ids=["UTF-8", "Latin-1", "padded", "controls"],
)
def test_characters(stored: bytes, text: str) -> None:
    assert iptc.read_texts(data_set(iptc.BYLINE, stored)) == {iptc.BYLINE: [text]}


def test_empty_texts_and_previews_are_left_out() -> None:
    preview = struct.pack(">BBBHI", 0x1C, 2, 202, 0x8004, 40_000) + bytes(40_000)
    data = data_set(iptc.TITLE, b"") + data_set(iptc.CREDIT, b" ") + data_set(iptc.BYLINE, b"Bo")
    assert iptc.read_texts(data + preview) == {iptc.BYLINE: ["Bo"]}


def test_among_the_resources_of_photoshop() -> None:
    texts = data_set(iptc.TITLE, b"A cat")
    others = resource(0x03ED, b"odd") + resource(0x040C, b"a thumbnail", name=b"of odd length")
    others += resource(0x0425, b"even", name=b"a name")
    assert iptc.from_photoshop(others + resource(0x0404, texts) + others) == texts
    assert iptc.from_photoshop(others) == b""
    assert iptc.from_photoshop(others[:-6]) == b""


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes(first: bytes, second: bytes) -> None:
    data = data_set(iptc.CAPTION, first) + data_set(iptc.KEYWORDS, second)[1:] + second
    for content in (first, data, second + data):
        for found in (content, iptc.from_photoshop(resource(0x0404, content)[: len(content)])):
            packet = xmp.descriptive(b"", iptc.read_texts(found))
            if packet:
                ElementTree.fromstring(packet.decode())
