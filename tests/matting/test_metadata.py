"""Profile and EXIF go from any format into any other, as Pillow, another reader, sees them."""

import io
import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from matting import exif
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


def test_the_preview_goes_and_makers_notes_keep_their_place() -> None:
    note = exif.Field(exif.UNDEFINED, b"a note with places counted from the beginning")
    block = exif.write_block({0x8769: exif.Field(exif.LONG, {exif.MAKER_NOTE: note})})
    preview = len(block)
    first_end = 8 + 2 + 12
    with_preview = block[:first_end] + struct.pack("<I", preview) + block[first_end + 4 :]
    assert exif.upright(with_preview + b"\0\0") == block + b"\0\0"


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
