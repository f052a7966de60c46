"""What an XMP packet says of the subject and its rights; all else that it says is left out.

Source: Adobe, XMP Specification, parts 1 and 3.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from matting import iptc

LARGEST = 4 * 2**20
"""Bytes of a packet that is read. The history of a much edited photo takes megabytes."""

_SPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xml": "http://www.w3.org/XML/1998/namespace",
    "cc": "http://creativecommons.org/ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}
_PREFIXES = {space: prefix for prefix, space in _SPACES.items()}
for _space, _prefix in _PREFIXES.items():
    ElementTree.register_namespace(_prefix, _space)

# What is not listed would be untrue of a cut-out, or show what it leaves out. tiff, exif and
# dc:format tell the size, orientation and format of the photo's own file. xmp:Thumbnails, GImage
# and GDepth are pictures of the old background. GCamera, Container and hdrgm describe a film, or a
# map of depth or gain, that follows the photo in its file. mwg-rs and ImageRegion say where faces
# were before it was turned. The settings in crs are applied already, and xmpMM and
# photoshop:History tell the history of another file.
_KEPT_SPACES = {"cc", "dc", "Iptc4xmpCore", "Iptc4xmpExt", "plus", "xmpRights"}
_LEFT_OUT_OF_THEM = {"dc:format", "Iptc4xmpExt:ImageRegion"}
_KEPT = {
    *("lr:hierarchicalSubject", "xmp:CreateDate", "xmp:Label", "xmp:Rating"),
    *("photoshop:AuthorsPosition", "photoshop:CaptionWriter", "photoshop:Category"),
    *("photoshop:City", "photoshop:Country", "photoshop:Credit", "photoshop:DateCreated"),
    *("photoshop:Headline", "photoshop:Instructions", "photoshop:Source", "photoshop:State"),
    *("photoshop:SupplementalCategories", "photoshop:TransmissionReference", "photoshop:Urgency"),
}
_OF_IPTC = {
    iptc.TITLE: ("dc:title", "rdf:Alt"),
    iptc.KEYWORDS: ("dc:subject", "rdf:Bag"),
    iptc.BYLINE: ("dc:creator", "rdf:Seq"),
    iptc.CREDIT: ("photoshop:Credit", ""),
    iptc.COPYRIGHT: ("dc:rights", "rdf:Alt"),
    iptc.CAPTION: ("dc:description", "rdf:Alt"),
}
"""What data sets of IPTC-IIM are called in XMP, and the container that they are in there."""


def descriptive(packet: bytes, texts: Mapping[int, Sequence[str]]) -> bytes:
    """Return a packet of what is kept of another, in UTF-8; empty if that is nothing.

    Parameters
    ----------
    packet : bytes
        In UTF-8. It counts as empty if it is damaged, larger than `LARGEST`, or declares a document
        type, whose entities could grow without bounds.
    texts : mapping of int to sequence of str
        IPTC-IIM (see `matting.iptc.read_texts`) for what the packet does not say.
    """
    kept: dict[str, Element] = {}
    for element in chain(_properties(packet), _properties_of_iptc(texts)):
        if _is_kept(element.tag):
            kept.setdefault(element.tag, element)
    try:
        return _packet(kept.values()) if kept else b""
    except RecursionError:  # no description is nested so deeply
        return b""


def _is_kept(tag: str) -> bool:
    space, _, local = tag[1:].rpartition("}")
    prefix = _PREFIXES.get(space)
    name = f"{prefix}:{local}"
    return name in _KEPT or (prefix in _KEPT_SPACES and name not in _LEFT_OUT_OF_THEM)


def _tag(name: str) -> str:
    """Return a name with a prefix as `ElementTree` has it."""
    prefix, _, local = name.partition(":")
    return f"{{{_SPACES[prefix]}}}{local}"


def _properties(packet: bytes) -> Iterator[Element]:
    """Yield a packet's properties, which may be elements or attributes, as elements."""
    if len(packet) > LARGEST:
        return
    try:
        text = packet.decode("utf-8-sig").strip("\0 \t\r\n")
        if "<!DOCTYPE" in text:
            return
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError):
        return
    rdf = root if root.tag == _tag("rdf:RDF") else root.find(_tag("rdf:RDF"))
    for description in [] if rdf is None else rdf.findall(_tag("rdf:Description")):
        for tag, value in description.items():
            element = Element(tag)
            element.text = value
            yield element
        yield from description


def _properties_of_iptc(texts: Mapping[int, Sequence[str]]) -> Iterator[Element]:
    for number, (name, container) in _OF_IPTC.items():
        if number not in texts:
            continue
        element = Element(_tag(name))
        if not container:
            element.text = texts[number][0]
        elif container == "rdf:Alt":  # of languages
            items = SubElement(element, _tag(container))
            item = SubElement(items, _tag("rdf:li"), {_tag("xml:lang"): "x-default"})
            item.text = texts[number][0]
        else:
            items = SubElement(element, _tag(container))
            for text in texts[number]:
                SubElement(items, _tag("rdf:li")).text = text
        yield element


def _packet(properties: Iterable[Element]) -> bytes:
    root = Element(_tag("x:xmpmeta"))
    rdf = SubElement(root, _tag("rdf:RDF"))
    SubElement(rdf, _tag("rdf:Description"), {_tag("rdf:about"): ""}).extend(properties)
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, "unicode")
    begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{begin}\n{text}\n<?xpacket end="r"?>'.encode()
