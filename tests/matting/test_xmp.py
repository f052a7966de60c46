"""What is kept of an XMP packet, and that nothing in one can do harm."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matting import iptc, xmp

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "cc": "http://creativecommons.org/ns#",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}
DECLARED = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in SPACES.items())
PREVIEW = """<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource">
<xmpGImg:image>/9j/4AAQ</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>"""
RIGHTS = '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© Åsa</rdf:li></rdf:Alt></dc:rights>'


def packet(*descriptions: str) -> bytes:
    """Descriptions as they are written, in the rest of a packet."""
    rdf = f"<rdf:RDF {DECLARED}>{''.join(descriptions)}</rdf:RDF>"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta>{" " * 2000}<?xpacket end="w"?>'
    ).encode()


def description(elements: str = "", attributes: str = "") -> str:
    return f'<rdf:Description rdf:about="" {attributes}>{elements}</rdf:Description>'


def kept(data: bytes, texts: dict[int, list[str]] | None = None) -> dict[str, list[str]]:
    """The texts in each property of what is kept."""
    found = xmp.descriptive(data, texts or {})
    if not found:
        return {}
    (described,) = ElementTree.fromstring(found.decode()).iterfind("rdf:RDF/*", SPACES)
    assert described.attrib == {f"{{{SPACES['rdf']}}}about": ""}
    prefixes = {space: prefix for prefix, space in SPACES.items()}
    read = {}
    for element in described:
        space, _, local = element.tag[1:].partition("}")
        texts_in_it = [text.strip() for text in element.itertext() if text.strip()]
        read[f"{prefixes[space]}:{local}"] = texts_in_it + list(element.attrib.values())
    return read


KEPT = {
    "cc:attributionName": ["Åsa"],
    "dc:creator": ["Åsa & <Bo>"],
    "Iptc4xmpCore:CountryCode": ["NOR"],
    "Iptc4xmpExt:Event": ["A wedding"],
    "lr:hierarchicalSubject": ["a|b"],
    "photoshop:Credit": ['An "agency"'],
    "photoshop:Urgency": ["2"],
    "plus:ModelReleaseStatus": ["MR-NON"],
    "xmp:CreateDate": ["2026-01-02T03:04:05"],
    "xmp:Label": ["Red"],
    "xmp:Rating": ["-1"],
    "xmpRights:Marked": ["True"],
}
GONE = {
    "crs:Exposure2012": "+1.50",
    "dc:format": "image/jpeg",
    "exif:PixelXDimension": "4000",
    "GCamera:MotionPhoto": "1",
    "GDepth:Data": "/9j/4AAQ",
    "GImage:Data": "/9j/4AAQ",
    "hdrgm:Version": "1.0",
    "Iptc4xmpExt:ImageRegion": "a face",
    "lr:privateRTKInfo": "x",
    "photoshop:ColorMode": "4",
    "photoshop:DocumentAncestors": "x",
    "photoshop:History": "cut out",
    "tiff:Orientation": "6",
    "xmp:CreatorTool": "x",
    "xmp:MetadataDate": "2026-01-02",
    "xmpMM:DocumentID": "x",
    "xmpNote:HasExtendedXMP": "x",
}


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def as_attributes(properties: dict[str, str]) -> str:
    return " ".join(f'{name}="{escaped(value)}"' for name, value in properties.items())


def as_elements(properties: dict[str, str]) -> str:
    return "".join(f"<{name}>{escaped(value)}</{name}>" for name, value in properties.items())


@pytest.mark.parametrize("form", ["attributes", "elements", "a block each"])
def test_what_describes_the_subject_and_its_rights_is_kept(form: str) -> None:
    everything = {name: values[0] for name, values in KEPT.items()} | GONE
    if form == "attributes":
        data = packet(description(PREVIEW, as_attributes(everything)))
    elif form == "elements":
        data = packet(description(as_elements(everything) + PREVIEW))
    else:
        blocks = [description(as_elements({name: text})) for name, text in everything.items()]
        data = packet(*blocks, description(PREVIEW))
    assert kept(data) == KEPT


def test_what_only_describes_the_file_leaves_no_packet() -> None:
    data = packet(description(PREVIEW + as_elements(GONE)))
    assert xmp.descriptive(data, {}) == b""
    assert xmp.descriptive(b"", {}) == b""


def test_lists_languages_links_and_structures_stay_whole() -> None:
    names = "<rdf:Seq><rdf:li>Åsa</rdf:li><rdf:li>Bo</rdf:li></rdf:Seq>"
    titles = '<rdf:li xml:lang="x-default">A cat</rdf:li><rdf:li xml:lang="de">Katze</rdf:li>'
    contact = "<Iptc4xmpCore:CiEmailWork>a@b.no</Iptc4xmpCore:CiEmailWork>"
    place = "<exif:GPSLatitude>59,54N</exif:GPSLatitude>"
    elements = (
        f"<dc:creator>{names}</dc:creator><dc:title><rdf:Alt>{titles}</rdf:Alt></dc:title>"
        '<cc:license rdf:resource="http://a.b/by/4.0/"/>'
        '<Iptc4xmpCore:CreatorContactInfo rdf:parseType="Resource">'
        f"{contact}</Iptc4xmpCore:CreatorContactInfo>"
        f"<Iptc4xmpExt:LocationShown>{place}</Iptc4xmpExt:LocationShown>"
    )
    found = xmp.descriptive(packet(description(elements)), {}).decode()
    flat = found.replace("\n", "").replace("  ", "").replace("> <", "><")
    assert f"<dc:creator>{names}</dc:creator>" in flat
    assert f"<dc:title><rdf:Alt>{titles}</rdf:Alt></dc:title>" in flat
    assert '<cc:license rdf:resource="http://a.b/by/4.0/" />' in flat
    assert f'rdf:parseType="Resource">{contact}<' in flat
    assert "GPSLatitude>59,54N<" in flat


def test_the_first_of_two_counts() -> None:
    data = packet(description("<dc:source>element</dc:source>", 'dc:source="attribute"'))
    assert kept(data) == {"dc:source": ["attribute"]}


def test_forms_that_a_packet_may_have() -> None:
    whole = packet(description(RIGHTS))
    without_wrapper = whole[whole.index(b"<x:") : whole.index(b"<?xpacket end")]
    bare = without_wrapper[without_wrapper.index(b"<rdf:RDF") :].replace(b"</x:xmpmeta>", b"")
    for data in (
        whole,
        without_wrapper,
        bare,
        b"\xef\xbb\xbf" + bare,
        bare + b"\0\0",
        b'\n<?xml version="1.0" encoding="UTF-8"?>' + bare,
        bare.replace(b"rdf:", b"r:").replace(b"xmlns:rdf=", b"xmlns:r="),
    ):
        assert kept(data) == {"dc:rights": ["© Åsa"]}


def test_it_is_a_packet_in_utf_8() -> None:
    found = xmp.descriptive(packet(description(RIGHTS)), {})
    head = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta '
    assert found.startswith(head)
    assert found.endswith(b'</x:xmpmeta>\n<?xpacket end="r"?>')
    assert "© Åsa".encode() in found
    assert xmp.descriptive(found, {}) == found


LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghi"))
SOUND = packet(description(RIGHTS))
ENTITY = SOUND.replace("© Åsa".encode(), b"&i;")
REFUSED = {
    "empty": b"",
    "garbage": bytes(range(256)),
    "text": b"all rights reserved",
    "cut short": SOUND[: SOUND.index(b"</rdf:RDF>")],
    "another document": b"<html/>",
    "UTF-16": SOUND.decode().encode("utf-16"),
    "Latin-1": SOUND.replace("Å".encode(), b"\xc5"),
    "a document type": b"<!DOCTYPE x:xmpmeta>" + SOUND,
    "an entity": b'<!DOCTYPE x [<!ENTITY i "me">]>' + ENTITY,
    "a billion laughs": f'<!DOCTYPE x [<!ENTITY a "ha">{LAUGHS}]>'.encode() + ENTITY,
    "a file": b'<!DOCTYPE x [<!ENTITY i SYSTEM "file:///etc/passwd">]>' + ENTITY,
    "an entity undeclared": ENTITY,
    "too large": SOUND + b" " * xmp.LARGEST,
    "too deep": packet(description("<dc:source>" * 90_000 + "</dc:source>" * 90_000)),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes) -> None:
    assert xmp.descriptive(data, {}) == b""


def test_as_large_as_may_be() -> None:
    assert kept(SOUND.ljust(xmp.LARGEST)) == {"dc:rights": ["© Åsa"]}


def test_iptc_tells_what_the_packet_does_not() -> None:
    texts = {
        iptc.TITLE: ["A cat"],
        iptc.KEYWORDS: ["cat", "grass & <hay>"],
        iptc.BYLINE: ["Åsa", "Bo"],
        iptc.CREDIT: ["An agency"],
        iptc.COPYRIGHT: ["another's"],
        iptc.CAPTION: ["It sits."],
        202: ["a preview"],
    }
    assert kept(b"", texts) == {
        "dc:title": ["A cat"],
        "dc:subject": ["cat", "grass & <hay>"],
        "dc:creator": ["Åsa", "Bo"],
        "photoshop:Credit": ["An agency"],
        "dc:rights": ["another's"],
        "dc:description": ["It sits."],
    }
    both = kept(SOUND, texts)
    assert (both["dc:rights"], both["dc:title"]) == (["© Åsa"], ["A cat"])
    assert kept(REFUSED["a document type"], {iptc.CREDIT: ["An agency"]}) == {
        "photoshop:Credit": ["An agency"]
    }


PIECES = st.sampled_from(
    ["<", ">", "/>", "&", '"', "<dc:a>", "</dc:a>", "\0", "\ufffe", "&#1;", "<![CDATA[", "]]>"]
    + [f"<{name}>" for name in ("rdf:li", "dc:rights", "rdf:Description", "tiff:Orientation")]
    + ["<!--", "-->", "<?a", "?>", " xmlns:dc=''", " a='b'", "<!DOCTYPE x>", "é", "&amp;"]
)


@given(
    edits=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 30), st.one_of(PIECES, st.text())),
        max_size=5,
    )
)
def test_damaged_packets(edits: list[tuple[int, int, str]]) -> None:
    """They give a sound packet that says nothing but what may be said, or none."""
    text = packet(description(RIGHTS + PREVIEW, as_attributes(GONE))).decode()
    for at, length, piece in edits:
        at %= len(text)
        text = text[:at] + piece + text[at + length :]
    found = kept(text.encode("utf-8", "surrogatepass"))
    assert not set(found) & set(GONE)
