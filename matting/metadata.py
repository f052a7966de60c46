"""What a photo's file says besides its pixels: colours (ICC, cICP), EXIF, XMP and resolution.

OpenCV neither reads nor writes them, and libraries that do encode the pixels anew, which none of
them does for 16-bit RGBA in all formats. So they are put into the file that OpenCV has encoded.
PNG, JPEG, WebP and TIFF are known; other formats are taken to hold none of them.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from matting import exif, iptc, xmp
from matting.exif import Field
from matting.headers import (
    PNG_SIGNATURE,
    HeaderError,
    image_format,
    image_size,
    jpeg_segments,
    png_chunks,
)

JPEG_SEGMENT = 65533
"""Bytes that fit into one segment of a JPEG."""
JPEG_XMP = 65502
"""Bytes of XMP that a JPEG takes, as XMP's specification has it."""
MOST_PARTS = 255
"""Segments of a JPEG that hold a profile: they are numbered by a byte."""
LARGEST_PROFILE = 16 * 2**20
LARGEST_RESOLUTION = 65535
"""Pixels per inch, as a JPEG's header takes them."""
_METRES_PER_INCH = exif.CENTIMETRES_PER_INCH / 100
_JPEG_JFIF, _JPEG_EXIF, _JPEG_ICC = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0"
_JPEG_XMP, _JPEG_PHOTOSHOP = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_PNG_XMP = b"XML:com.adobe.xmp\0"
_WEBP_ICC, _WEBP_ALPHA, _WEBP_EXIF, _WEBP_XMP = 0x20, 0x10, 0x08, 0x04  # flags
_WEBP_LOSSLESS_ALPHA = 1 << 28


HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics, numbered as in ITU-T H.273."""


class Metadata(NamedTuple):
    """A photo's metadata; each part is empty if it has none.

    Attributes
    ----------
    icc : bytes
        An ICC profile of RGB colours.
    exif : bytes
        An EXIF block: a small TIFF file.
    resolution : float
        Pixels per inch, across and down; 0 if unknown. The file's own header comes before EXIF.
    cicp : bytes
        Four numbers of ITU-T H.273: colour primaries, transfer characteristics, matrix (0: RGB)
        and whether the range is full. Only PNG and videos have it; it comes before a profile.
    xmp : bytes
        An XMP packet. What a JPEG has beyond 64 KB of it (extended XMP) is left out.
    iptc : bytes
        IPTC-IIM, which only JPEG and TIFF have. It is read, but not written.
    """

    icc: bytes = b""
    exif: bytes = b""
    resolution: float = 0
    cicp: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""

    @property
    def hdr(self) -> str:
        """One of the names of `HDR`, or empty."""
        return HDR.get(self.cicp[1], "") if self.cicp else ""

    @property
    def orientation(self) -> int:
        """How the photo is to be turned, as EXIF numbers it: 1 to 8, and 1 is upright."""
        return exif.orientation(self.exif)

    def upright(self) -> "Metadata":
        """Return what is sound of it, for the photo once turned: the orientation is then 1.

        A profile of other colours than RGB is left out: pixels are RGB once they are read. EXIF is
        what `matting.exif.descriptive` keeps of it, and XMP what `matting.xmp.descriptive` keeps of
        XMP and IPTC-IIM.
        """
        icc = self.icc if self.icc[16:20] == b"RGB " else b""
        block = _described(self.exif)
        resolution = self.resolution or (exif.resolution(block) if block else 0)
        resolution = resolution if 1 <= resolution <= LARGEST_RESOLUTION else 0
        cicp = self.cicp if len(self.cicp) == 4 else b""
        description = xmp.descriptive(self.xmp, iptc.read_texts(self.iptc))
        return Metadata(icc, block, resolution, cicp, description)


def read_metadata(data: bytes) -> Metadata:
    """Read the metadata of an encoded image as they are; none where the file is damaged.

    A TIFF file's orientation is 1: libtiff turns it.
    """
    readers = {"PNG": _from_png, "JPEG": _from_jpeg, "WebP": _from_webp, "TIFF": _from_tiff}
    reader = readers.get(image_format(data) or "")
    with contextlib.suppress(HeaderError, struct.error, zlib.error, IndexError):
        return reader(data) if reader else Metadata()
    return Metadata()


def insert_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Return an image that OpenCV has encoded, with metadata put into it.

    A JPEG has no room for an EXIF block or XMP of more than 64 KB, or a profile of more than 16 MB:
    they are left out. A WebP states its resolution in EXIF only.
    """
    writers = {"PNG": _into_png, "JPEG": _into_jpeg, "WebP": _into_webp, "TIFF": _into_tiff}
    writer = writers.get(image_format(data) or "")
    return writer(data, metadata) if writer and any(metadata) else data


def declare_alpha(tiff: bytes, premultiplied: bool) -> bytes:
    """Return an RGBA TIFF of OpenCV's that says what its fourth channel is, which OpenCV omits."""
    kind = exif.PREMULTIPLIED_ALPHA if premultiplied else exif.STRAIGHT_ALPHA
    alpha = Field(exif.SHORT, struct.pack("<H", kind))
    return _add_fields(tiff, {exif.EXTRA_SAMPLES: alpha})


def _described(data: bytes) -> bytes:
    """Return what an EXIF block or a TIFF file says of the photo, as a block; empty if nothing."""
    with contextlib.suppress(struct.error):
        if kept := exif.descriptive(exif.read_block(data)):
            return exif.write_block(kept)
    return b""


# PNG: chunks of length, kind, content, checksum.


def _from_png(data: bytes) -> Metadata:
    icc, block, resolution, cicp, packet = b"", b"", 0.0, b"", b""
    for kind, content, _ in png_chunks(data):
        if kind == b"iCCP":
            packed = bytes(content).partition(b"\0")[2]  # after the profile's name
            # After the method, of which there is one. A few bytes may claim to be gigabytes.
            icc = zlib.decompressobj().decompress(packed[1:], LARGEST_PROFILE)
        elif kind == b"eXIf":
            block = bytes(content)
        elif kind == b"pHYs":
            across, down, is_metric = struct.unpack(">IIB", content)
            resolution = across * _METRES_PER_INCH if is_metric and across == down else 0
        elif kind == b"cICP":
            cicp = bytes(content)
        elif kind == b"iTXt" and content[: len(_PNG_XMP)] == _PNG_XMP:
            packet = packet or _png_text(bytes(content[len(_PNG_XMP) :]))
    return Metadata(icc, block, resolution, cicp, packet)


def _png_text(content: bytes) -> bytes:
    """Return the text of an iTXt chunk, of which this comes after the keyword; empty if damaged."""
    text = content[2:].split(b"\0", 2)[-1]  # after the language, and the keyword in it
    if content[:1] == b"\0":
        return text
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj().decompress(text, xmp.LARGEST)
    return b""


def _into_png(data: bytes, metadata: Metadata) -> bytes:
    chunks = b""
    if metadata.cicp:
        chunks += _png_chunk(b"cICP", metadata.cicp)
    if metadata.icc:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if metadata.exif:
        chunks += _png_chunk(b"eXIf", metadata.exif)
    if metadata.resolution:
        per_metre = round(metadata.resolution / _METRES_PER_INCH)
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))
    if metadata.xmp:
        chunks += _png_chunk(b"iTXt", _PNG_XMP + bytes(4) + metadata.xmp)
    begin = len(PNG_SIGNATURE) + 25  # after the header chunk
    return data[:begin] + chunks + data[begin:]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


# JPEG: segments of marker, length, content, before the pixels.


def _from_jpeg(data: bytes) -> Metadata:
    parts, resources, block, resolution, packet = {}, [], b"", 0.0, b""
    for marker, content in jpeg_segments(data):
        if marker == _APP0 and content.startswith(_JPEG_JFIF):
            unit, across, down = struct.unpack_from(">BHH", content, 7)
            per_inch = {1: 1, 2: exif.CENTIMETRES_PER_INCH}.get(unit, 0)
            resolution = across * per_inch if across == down else 0
        elif marker == _APP1 and content.startswith(_JPEG_EXIF):
            block = block or content[len(_JPEG_EXIF) :]
        elif marker == _APP1 and content.startswith(_JPEG_XMP):
            packet = packet or content[len(_JPEG_XMP) :]
        elif marker == _APP2 and content.startswith(_JPEG_ICC):
            number = content[len(_JPEG_ICC)]
            parts[number] = content[len(_JPEG_ICC) + 2 :]
        elif marker == _APP13 and content.startswith(_JPEG_PHOTOSHOP):
            resources.append(content[len(_JPEG_PHOTOSHOP) :])
    icc = b"".join(parts[number] for number in sorted(parts))
    texts = iptc.from_photoshop(b"".join(resources))
    return Metadata(icc, block, resolution, xmp=packet, iptc=texts)


def _into_jpeg(data: bytes, metadata: Metadata) -> bytes:
    segments = b""
    block = _JPEG_EXIF + metadata.exif
    if metadata.exif and len(block) <= JPEG_SEGMENT:
        segments += _jpeg_segment(_APP1, block)
    if metadata.xmp and len(metadata.xmp) <= JPEG_XMP:
        segments += _jpeg_segment(_APP1, _JPEG_XMP + metadata.xmp)
    room = JPEG_SEGMENT - len(_JPEG_ICC) - 2
    parts = [metadata.icc[begin : begin + room] for begin in range(0, len(metadata.icc), room)]
    for number, part in enumerate(parts if len(parts) <= MOST_PARTS else [], start=1):
        segments += _jpeg_segment(_APP2, _JPEG_ICC + bytes([number, len(parts)]) + part)
    begin = 2
    if data[3] == _APP0:  # JFIF's own header comes first
        begin += 2 + int.from_bytes(data[4:6], "big")
        if metadata.resolution:
            dots = round(metadata.resolution)
            data = data[:13] + struct.pack(">BHH", 1, dots, dots) + data[18:]
    return data[:begin] + segments + data[begin:]


def _jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


# WebP: chunks of kind, length, content, padded to even lengths.


def _from_webp(data: bytes) -> Metadata:
    chunks = dict(_webp_chunks(data))
    block = chunks.get(b"EXIF", b"").removeprefix(_JPEG_EXIF)  # some writers put it there
    return Metadata(chunks.get(b"ICCP", b""), block, xmp=chunks.get(b"XMP ", b""))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 12
    while offset < len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        yield kind, data[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2


def _into_webp(data: bytes, metadata: Metadata) -> bytes:
    if not (metadata.icc or metadata.exif or metadata.xmp):
        return data
    height, width = image_size(data)
    (bits,) = struct.unpack_from("<I", data, 21)
    flags = _WEBP_ALPHA if bits & _WEBP_LOSSLESS_ALPHA else 0
    flags |= _WEBP_ICC if metadata.icc else 0
    flags |= _WEBP_EXIF if metadata.exif else 0
    flags |= _WEBP_XMP if metadata.xmp else 0
    size = b"".join((length - 1).to_bytes(3, "little") for length in (width, height))
    chunks = _webp_chunk(b"VP8X", struct.pack("<I", flags) + size)
    if metadata.icc:
        chunks += _webp_chunk(b"ICCP", metadata.icc)
    chunks += data[12:]
    if metadata.exif:
        chunks += _webp_chunk(b"EXIF", metadata.exif)
    if metadata.xmp:
        chunks += _webp_chunk(b"XMP ", metadata.xmp)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


# TIFF: a directory, whose fields are EXIF's.


def _from_tiff(data: bytes) -> Metadata:
    directory = exif.read_block(data)
    icc, packet, texts = (
        _bytes(directory.get(tag)) for tag in (exif.ICC_PROFILE, exif.XMP, exif.IPTC)
    )
    return Metadata(icc, _described(data), xmp=packet, iptc=texts)


def _bytes(field: Field | None) -> bytes:
    return field.value if field and isinstance(field.value, bytes) else b""


def _into_tiff(data: bytes, metadata: Metadata) -> bytes:
    fields = {}
    if metadata.exif:
        fields = exif.descriptive(exif.read_block(metadata.exif))
    if metadata.icc:
        fields[exif.ICC_PROFILE] = Field(exif.UNDEFINED, metadata.icc)
    if metadata.resolution:
        fields |= exif.resolution_fields(metadata.resolution)
    if metadata.xmp:
        fields[exif.XMP] = Field(exif.BYTE, metadata.xmp)
    return _add_fields(data, fields)


def _add_fields(tiff: bytes, fields: exif.Directory) -> bytes:
    """Put a larger directory at the end of a file of one page; pixels stay where they are."""
    tiff += b"\0" * (len(tiff) % 2)
    directory = exif.read_block(tiff) | fields
    start = struct.pack("<I", len(tiff))
    return tiff[:4] + start + tiff[8:] + exif.write_directory(directory, len(tiff))
