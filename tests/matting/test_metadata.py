"""Profile, EXIF and XMP go from any format into any other, as Pillow, another reader, sees them."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from matting import exif, xmp
from matting.images import read_image, read_photo, write_image
from matting.metadata import Metadata, insert_metadata, read_metadata

SUFFIXES = (".png", ".jpg", ".webp", ".tif")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = PROFILE[:16] + b"GRAY" + PROFILE[20:]
TAKEN, PLACE = "2024:05:06 07:08:09", (59.0, 54.0, 36.25)


def camera_exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ExifTags.Base.Make] = "A camera"
    block[ExifTags.Base.Orientation] = orientation
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = TAKEN
    block.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = PLACE
    return block


def save_as_a_camera(path: Path, profile: bytes = PROFILE, orientation: int = 6) -> Path:
    """Save a picture of 40 x 30 pixels, wider than high, that is to be shown upright."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, :20] = 200
    options = {"lossless": True} if path.suffix == ".webp" else {}
    picture = Image.fromarray(pixels)
    picture.save(path, icc_profile=profile, exif=camera_exif(orientation).tobytes(), **options)
    return path


def as_pillow_sees(path: Path) -> tuple[object, ...]:
    with Image.open(path) as picture:
        picture.load()
        block = picture.getexif()
        taken = block.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        place = block.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitude)
        make = str(block.get(ExifTags.Base.Make)).rstrip("\0")
        turn = block.get(ExifTags.Base.Orientation, 1)
        return picture.info.get("icc_profile"), make, turn, taken, place


@pytest.mark.parametrize(("source", "target"), [*itertools.product(SUFFIXES, SUFFIXES)])
def test_from_every_format_to_every_other(tmp_path: Path, source: str, target: str) -> None:
    photo = read_photo(save_as_a_camera(tmp_path / f"photo{source}"))
    assert photo.pixels.shape == (40, 30, 3)  # turned
    path = tmp_path / f"out{target}"
    write_image(path, photo.pixels, photo.metadata)
    assert as_pillow_sees(path) == (PROFILE, "A camera", 1, TAKEN, PLACE)
    assert abs(read_image(path).astype(int) - photo.pixels).max() <= 3
    with Image.open(path) as picture:
        pillows = np.array(picture.convert("RGB"))
    assert abs(pillows.astype(int) - photo.pixels).max() <= 3


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".tif", "exif"])
def test_the_resolution_stays(tmp_path: Path, source: str, target: str) -> None:
    photo = tmp_path / f"photo{source if source != 'exif' else '.webp'}"
    block = Image.Exif()
    if source == "exif":
        block[ExifTags.Base.XResolution] = block[ExifTags.Base.YResolution] = 300
        block[ExifTags.Base.ResolutionUnit] = 2
    Image.new("RGB", (9, 9)).save(photo, dpi=(300, 300), exif=block)
    metadata = read_photo(photo).metadata
    assert metadata.resolution == pytest.approx(300, rel=1e-5)
    path = tmp_path / f"out{target}"
    write_image(path, np.zeros((9, 9, 3), np.uint8), metadata)
    with Image.open(path) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), rel=1e-5)


XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 tiff:Orientation="6" dc:rights="© Åsa"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
KEPT = xmp.descriptive(PACKET, {})


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def save_with_xmp(path: Path, packet: bytes = PACKET) -> Path:
    """Save a picture with XMP as its format has it, and with a profile."""
    told = PngImagePlugin.PngInfo()
    told.add_itxt("Comment", "another text")
    told.add_itxt("XML:com.adobe.xmp", packet, zip=path.stem == "packed")
    options = {
        ".png": {"pnginfo": told},
        ".jpg": {"extra": jpeg_segment(0xE1, (XMP_HEADER + packet)[:65533])},
        ".webp": {"xmp": packet},
        ".tif": {"tiffinfo": {700: packet}},
    }[path.suffix]
    Image.new("RGB", (8, 8)).save(path, icc_profile=PROFILE, **options)
    return path


def xmp_as_pillow_sees(path: Path) -> bytes:
    with Image.open(path) as picture:
        picture.load()
        if path.suffix == ".png":
            return picture.info.get("XML:com.adobe.xmp", "").encode()
        if path.suffix == ".tif":
            return picture.tag_v2.get(700, b"")
        if path.suffix == ".jpg":
            headers = (content for marker, content in picture.applist if marker == "APP1")
            found = [content for content in headers if content.startswith(XMP_HEADER)]
            return b"".join(found).removeprefix(XMP_HEADER)
        return picture.info.get("xmp", b"")


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", ["photo.png", "packed.png", "photo.jpg", "a.webp", "a.tif"])
def test_xmp_from_every_format_to_every_other(tmp_path: Path, source: str, target: str) -> None:
    photo = read_photo(save_with_xmp(tmp_path / source))
    path = tmp_path / f"out{target}"
    write_image(path, photo.pixels, photo.metadata)
    assert xmp_as_pillow_sees(path) == KEPT
    assert "© Åsa".encode() in KEPT and b"Orientation" not in KEPT
    assert read_photo(path).metadata == Metadata(icc=PROFILE, xmp=KEPT)
    np.testing.assert_array_equal(read_image(path), photo.pixels)


@pytest.mark.parametrize("target", SUFFIXES)
def test_xmp_with_nothing_else(tmp_path: Path, target: str, random: np.random.Generator) -> None:
    """Of RGBA, where the format has it: a WebP needs a header of its own for it."""
    channels = 3 if target == ".jpg" else 4
    pixels = random.integers(1, 256, (33, 47, channels), dtype=np.uint8)
    path = tmp_path / f"a{target}"
    write_image(path, pixels, Metadata(xmp=KEPT))
    assert xmp_as_pillow_sees(path) == KEPT
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == pixels.shape
    with Image.open(path) as picture:
        if channels == 4:
            np.testing.assert_array_equal(np.array(picture), pixels)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "packet",
    [b"<!DOCTYPE x>" + PACKET, PACKET[:-100], bytes(range(256)), b""],
    ids=["a document type", "cut short", "garbage", "empty"],
)
def test_damaged_xmp_is_left_out_and_nothing_else(
    tmp_path: Path, suffix: str, packet: bytes
) -> None:
    path = save_with_xmp(tmp_path / f"a{suffix}", packet)
    assert read_photo(path).metadata == Metadata(icc=PROFILE)


@pytest.mark.parametrize("name", ["photo.png", "packed.png", "a.webp", "a.tif"])
def test_xmp_too_large_is_left_out(tmp_path: Path, name: str) -> None:
    path = save_with_xmp(tmp_path / name, PACKET.ljust(xmp.LARGEST))
    assert read_photo(path).metadata == Metadata(icc=PROFILE, xmp=KEPT)
    path = save_with_xmp(tmp_path / name, PACKET.replace(b"<x:", b" " * xmp.LARGEST + b"<x:"))
    assert read_photo(path).metadata == Metadata(icc=PROFILE)


@pytest.mark.parametrize(
    "text",
    [b"\1\0\0\0" + b"no zlib", b"\1\0", b"\1\0\0\0" + zlib.compress(bytes(2**25)), b""],
    ids=["not compressed", "without a text", "a bomb", "empty"],
)
def test_a_damaged_text_of_a_png(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, icc_profile=PROFILE)
    content = b"iTXtXML:com.adobe.xmp\0" + text
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])
    assert read_photo(path).metadata == Metadata(icc=PROFILE)


def test_the_extension_of_xmp_is_left_out(tmp_path: Path) -> None:
    extension = jpeg_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + PACKET)
    main = jpeg_segment(0xE1, XMP_HEADER + PACKET)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", extra=extension + main + extension)
    assert read_photo(tmp_path / "a.jpg").metadata == Metadata(xmp=KEPT)


def test_xmp_too_large_for_a_jpeg_is_left_out() -> None:
    plain = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    largest = KEPT.ljust(65502)
    assert read_metadata(insert_metadata(plain, Metadata(xmp=largest))).xmp == largest
    assert insert_metadata(plain, Metadata(xmp=largest + b" ")) == plain


CAPTION = b"\x1c\2\x74\0\x09(c) Clara" + b"\x1c\2\xca\0\4JFIF"  # and a preview


def test_iptc_of_a_jpeg_becomes_xmp(tmp_path: Path) -> None:
    """Also where it goes on in another segment, and whatever XMP says comes first."""
    resources = b"8BIM\4\4\0\0" + struct.pack(">I", len(CAPTION)) + CAPTION + b"\0"
    parts = b"".join(
        jpeg_segment(0xED, b"Photoshop 3.0\0" + part) for part in (resources[:20], resources[20:])
    )
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / "a.jpg", extra=parts)
    found = read_photo(tmp_path / "a.jpg").metadata
    assert b">(c) Clara<" in found.xmp and b"JFIF" not in found.xmp
    picture.save(tmp_path / "a.jpg", extra=parts + jpeg_segment(0xE1, XMP_HEADER + PACKET))
    assert read_photo(tmp_path / "a.jpg").metadata == Metadata(xmp=KEPT)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [exif.BYTE, exif.LONG, exif.UNDEFINED])
def test_iptc_of_a_tiff_becomes_xmp(order: str, kind: int) -> None:
    """As LONG in either order of bytes, too: they are not turned."""
    mark = {"<": b"II", ">": b"MM"}[order]
    padded = CAPTION.ljust(24, b"\0")
    count = len(padded) // (4 if kind == exif.LONG else 1)
    numbers = struct.pack(order + "HIHHHIII", 42, 8, 1, exif.IPTC, kind, count, 26, 0)
    found = read_metadata(mark + numbers + padded).upright()
    assert b">(c) Clara<" in found.xmp and b"JFIF" not in found.xmp


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_the_resolution_of_a_jpeg_in_its_units(unit: int) -> None:
    _, encoded = cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))
    data = encoded.tobytes()
    told = data[:13] + struct.pack(">BHH", unit, 100, 100) + data[18:]
    assert read_metadata(told).resolution == {0: 0, 1: 100, 2: 254}[unit]
    oblong = data[:13] + struct.pack(">BHH", unit, 100, 200) + data[18:]
    assert read_metadata(oblong).resolution == 0


@pytest.mark.parametrize(
    ("unit", "numbers", "expected"),
    [(2, (300, 1), 300), (3, (1000, 10), 254), (1, (300, 1), 0), (2, (1, 0), 0)],
)
def test_the_resolution_of_exif_in_its_units(
    unit: int, numbers: tuple[int, int], expected: float
) -> None:
    across = exif.Field(exif.RATIONAL, struct.pack("<II", *numbers))
    told = exif.Field(exif.SHORT, struct.pack("<H", unit))
    fields = {exif.X_RESOLUTION: across, exif.Y_RESOLUTION: across, exif.RESOLUTION_UNIT: told}
    assert Metadata(exif=exif.write_block(fields)).upright().resolution == expected


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("metadata", [Metadata(), Metadata(icc=PROFILE)])
def test_straight_rgba_as_pillow_sees_it(
    tmp_path: Path, suffix: str, metadata: Metadata, random: np.random.Generator
) -> None:
    pixels = random.integers(1, 256, (33, 47, 4), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    write_image(path, pixels, metadata)
    with Image.open(path) as picture:
        assert picture.mode == "RGBA"
        np.testing.assert_array_equal(np.array(picture), pixels)
        assert picture.info.get("icc_profile", b"") == metadata.icc


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_stay(tmp_path: Path, suffix: str, random: np.random.Generator) -> None:
    path = tmp_path / f"a{suffix}"
    for channels in (3, 4):
        pixels = random.integers(0, 65536, (33, 47, channels), dtype=np.uint16)
        write_image(path, pixels, Metadata(icc=PROFILE))
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        order = [2, 1, 0, 3][:channels]
        np.testing.assert_array_equal(stored[..., order], pixels)
        photo = read_photo(path)
        np.testing.assert_array_equal(photo.pixels, pixels[..., :3])
        assert photo.metadata == Metadata(icc=PROFILE)


def test_code_points_of_a_png(tmp_path: Path) -> None:
    hlg = bytes([9, 18, 0, 1])
    pixels = np.zeros((8, 8, 3), np.uint8)
    for suffix, cicp, expected in ((".png", hlg, hlg), (".png", b"9", b""), (".jpg", hlg, b"")):
        path = tmp_path / f"a{suffix}"
        write_image(path, pixels, Metadata(cicp=cicp))
        assert read_photo(path).metadata.cicp == expected
        with Image.open(path) as picture:
            picture.verify()


def test_formats_of_8_bits_take_the_nearest(tmp_path: Path, random: np.random.Generator) -> None:
    pixels = random.integers(0, 65536, (9, 9, 3), dtype=np.uint16)
    write_image(tmp_path / "a.bmp", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp"), np.rint(pixels / 257))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".webp", ".tif"])
def test_turned_as_pillow_turns(tmp_path: Path, suffix: str, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / f"a{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, exif=camera_exif(orientation).tobytes(), **options)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(read_image(path), ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_profile_of_other_colours_is_left_out(tmp_path: Path, suffix: str) -> None:
    path = save_as_a_camera(tmp_path / f"a{suffix}", profile=GREY_PROFILE)
    metadata = read_photo(path).metadata
    assert (metadata.icc, bool(metadata.exif)) == (b"", True)


def test_a_profile_that_needs_several_segments(tmp_path: Path) -> None:
    large = PROFILE + bytes(range(256)) * 600
    write_image(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8), Metadata(icc=large))
    assert as_pillow_sees(tmp_path / "a.jpg")[0] == large
    assert read_photo(tmp_path / "a.jpg").metadata.icc == large


def test_exif_too_large_for_a_jpeg_is_left_out(tmp_path: Path) -> None:
    words = exif.Field(2, b"word " * 20_000)
    block = exif.write_block({315: words})
    for suffix, kept in ((".png", block), (".webp", block), (".jpg", b"")):
        write_image(tmp_path / f"a{suffix}", np.zeros((8, 8, 3), np.uint8), Metadata(exif=block))
        assert read_photo(tmp_path / f"a{suffix}").metadata.exif == kept


def test_a_profile_too_large_for_a_jpeg_is_left_out() -> None:
    plain = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    largest = PROFILE.ljust(255 * 65519, b"\0")
    assert read_metadata(insert_metadata(plain, Metadata(icc=largest))).icc == largest
    assert insert_metadata(plain, Metadata(icc=largest + b"\0")) == plain


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_of_exif_what_describes_the_photo_stays(tmp_path: Path, source: str, target: str) -> None:
    """Makers' notes hold previews of the old background, and so may Photoshop's resources."""
    lens, author = exif.Field(2, b"85 mm\0"), exif.Field(exif.BYTE, "Åsa".encode("utf-16-le"))
    note = exif.Field(exif.UNDEFINED, b"\xff\xd8\xffa preview")
    block = exif.write_block(
        {
            0x8769: exif.Field(exif.LONG, {exif.MAKER_NOTE: note, 0xA434: lens}),
            40093: author,  # as Windows has it
            34377: note,  # Photoshop's resources
        }
    )
    pixels = np.zeros((8, 8, 3), np.uint8)
    photo, out = tmp_path / f"photo{source}", tmp_path / f"out{target}"
    Image.fromarray(pixels).save(photo, exif=b"Exif\0\0" + block if source == ".jpg" else block)
    assert note.value in photo.read_bytes()
    write_image(out, pixels, read_photo(photo).metadata)
    assert note.value not in out.read_bytes()
    with Image.open(out) as picture:
        found = picture.getexif()
        assert bytes(found[40093]) == author.value
        assert found.get_ifd(ExifTags.IFD.Exif)[0xA434].rstrip("\0") == "85 mm"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_of_the_preview_is_left(tmp_path: Path, suffix: str) -> None:
    preview = cv2.imencode(".jpg", np.full((9, 9, 3), 77, np.uint8))[1].tobytes()
    place = 8 + 2 + 4 + 2 + 2 * 12 + 4
    fields = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, place, 0x0202, 4, 1, len(preview), 0)
    block = b"II*\0" + struct.pack("<IHI", 8, 0, 14) + fields + preview
    pixels = np.zeros((8, 8, 3), np.uint8)
    write_image(tmp_path / "photo.jpg", pixels, Metadata(exif=block))
    assert preview in (tmp_path / "photo.jpg").read_bytes()
    write_image(tmp_path / f"a{suffix}", pixels, read_photo(tmp_path / "photo.jpg").metadata)
    assert preview[20:] not in (tmp_path / f"a{suffix}").read_bytes()


def test_big_endian_blocks(tmp_path: Path) -> None:
    """Into a TIFF, whose own order is the other one."""
    block = b"MM\0*" + struct.pack(">IHHHII", 8, 1, 282, 5, 1, 26) + struct.pack(">III", 0, 300, 7)
    write_image(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), Metadata(exif=block))
    with Image.open(tmp_path / "a.tif") as picture:
        assert picture.getexif()[282] == pytest.approx(300 / 7)
    assert exif.orientation(block) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_metadata_never_escape(tmp_path: Path, suffix: str) -> None:
    data = save_as_a_camera(tmp_path / f"a{suffix}").read_bytes()
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(data)
        for place in random.integers(12, len(data), 8):
            damaged[place] = random.integers(256)
        found = read_metadata(bytes(damaged)).upright()
        for target in (".png", ".jpg", ".webp", ".tif"):
            plain = cv2.imencode(target, np.zeros((4, 4, 3), np.uint8))[1].tobytes()
            insert_metadata(plain, found)
    for length in range(0, len(data), 7):
        read_metadata(data[:length])


def test_a_directory_that_leads_to_itself() -> None:
    entries = struct.pack("<HHII", 0x8769, 4, 1, 8) * 60_000
    block = b"II*\0" + struct.pack("<IH", 8, 60_000) + entries + bytes(4)
    assert set(exif.read_block(block)) == {0x8769}


def test_a_directory_of_many_fields() -> None:
    fields = {tag: exif.Field(exif.UNDEFINED, b"x" * 100) for tag in range(34_000)}
    assert exif.read_block(exif.write_block(fields)) == fields


def test_formats_without_metadata(tmp_path: Path, refusal: Callable[..., str]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "BMP")
    assert read_metadata(buffer.getvalue()) == Metadata()
    write_image(tmp_path / "a.bmp", np.zeros((4, 4, 3), np.uint8), Metadata(icc=PROFILE))
    assert read_photo(tmp_path / "a.bmp").metadata == Metadata()
