"""Reading and writing image files, RGB at every interface, with one clear line for each failure.

PNG, JPEG, WebP, TIFF and BMP are read and written. EXIF rotation is applied to photos, trimaps and
masks alike. 16-bit pixels are scaled to 8 bits (65535 becomes 255, nearest) unless `read_photo` is
asked for them (OpenCV has 8 of a TIFF of grey with alpha), and CMYK is converted. An alpha channel
is dropped and the colours below it are kept as stored.

A file that is cut short is refused, whatever the format. A JPEG or BMP with wrong bytes in the
middle cannot be told from a good one: JPEG and BMP carry no checksum.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from matting import exif
from matting.files import check_folder, write_whole
from matting.headers import HeaderError, image_format, image_size, other_format
from matting.metadata import Metadata, declare_alpha, insert_metadata, read_metadata

MAX_PIXELS = 200_000_000
"""Larger pictures are refused by their header, before they are decoded (600 MB as 8-bit RGB)."""

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")
"""Formats that hold 16 bits a channel."""
LARGEST_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
"""Pixels on a side at most, in formats that take fewer than `MAX_PIXELS`."""
COLOUR_NOISE = 16
"""Levels that red, green and blue of a grey trimap may be off it: lossy formats make 1 or 2."""
_FULL_CHROMA = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
"""For JPEG: 4:2:0 would mix the colours of a bright background into the subject's edge."""
_FORMATS = "PNG, JPEG, WebP, TIFF (not BigTIFF) or BMP"


class ImageError(ValueError):
    """An image file cannot be read or written. The message is one line that names the way out."""


class WriteError(ImageError):
    """A file cannot be written although all checks passed: the disk is full, or failed.

    Attributes
    ----------
    strerror : str or None
        The reason in words, as `OSError` has it.
    """

    def __init__(self, path: str | Path, strerror: str | None) -> None:
        super().__init__(f"{path}: cannot be written ({strerror})")
        self.strerror = strerror


class Photo(NamedTuple):
    """A photo as its file holds it, but upright.

    Attributes
    ----------
    pixels : ndarray, H x W x 3 RGB, uint8 or uint16
    metadata : Metadata
        Its colour profile, resolution, and what EXIF and XMP say of its subject.
    """

    pixels: np.ndarray
    metadata: Metadata


def read_image(path: str | Path) -> np.ndarray:
    """Read a photo as H x W x 3 uint8 RGB. Grey becomes RGB, an alpha channel is dropped.

    Raises
    ------
    ImageError
        The file is missing, unreadable, no image, damaged, or larger than ``MAX_PIXELS``.
    """
    return to_depth(read_photo(path).pixels, np.uint8)


def read_photo(path: str | Path) -> Photo:
    """Read a photo with all its bits and metadata; apart from these as `read_image`."""
    data = _read_bytes(Path(path))
    pixels, metadata = _decode(Path(path), data, cv2.IMREAD_COLOR), read_metadata(data)
    pixels = _turn(pixels, metadata.orientation)
    cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return Photo(pixels, metadata.upright())


def read_gray(path: str | Path) -> np.ndarray:
    """Read an alpha matte or mask as H x W uint8. Colour becomes its luma. Raises `ImageError`."""
    data = _read_bytes(Path(path))
    pixels = _turn(_decode(Path(path), data, cv2.IMREAD_GRAYSCALE), read_metadata(data).orientation)
    return to_depth(pixels, np.uint8)


def read_trimap(path: str | Path) -> np.ndarray:
    """Read a trimap or mask as H x W uint8, values as stored: see `matting.trimaps.check_trimap`.

    Equal red, green and blue give exactly that value.

    Raises
    ------
    ImageError
        As `read_image`, or the file is in colour, or its alpha channel is not the same everywhere:
        what `read_gray` makes of it would not be what is meant.
    """
    data = _read_bytes(Path(path))
    pixels = to_depth(_decode(Path(path), data, cv2.IMREAD_UNCHANGED), np.uint8)
    if pixels.ndim == 3:
        pixels = _grey(Path(path), pixels)
    return _turn(pixels, read_metadata(data).orientation)


def read_cutout(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a cut-out as its colours, H x W x 3 uint8 RGB, and its alpha, H x W uint8.

    The colours are as stored, below a transparent alpha too. EXIF rotation is not applied (but for
    a TIFF, which libtiff turns).

    Raises
    ------
    ImageError
        As `read_image`, or the file has no alpha channel.
    """
    data = _read_bytes(Path(path))
    pixels = to_depth(_decode(Path(path), data, cv2.IMREAD_UNCHANGED), np.uint8)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        raise ImageError(f"{path}: has no alpha channel; expected a cut-out, RGBA")
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), pixels[..., 3]


def read_size(path: str | Path) -> tuple[int, int]:
    """Return the height and width that a file's header states, before any EXIF rotation.

    Raises
    ------
    ImageError
        As `read_image`, apart from what only decoding shows.
    """
    return _size(Path(path), _read_bytes(Path(path)))


def to_depth(pixels: np.ndarray, depth: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """Scale uint8 or uint16 pixels to the other of the two, nearest; or return them as they are."""
    if pixels.dtype == depth:
        return pixels
    if depth == np.uint8:
        return cv2.convertScaleAbs(pixels, alpha=1 / 257)
    return pixels.astype(np.uint16) * np.uint16(257)


def write_image(path: str | Path, array: np.ndarray, metadata: Metadata | None = None) -> None:
    """Write an image whole or not at all: a temporary file beside it takes its name when complete.

    Parameters
    ----------
    path : str or Path
        The suffix says the format: .png, .jpg, .jpeg (quality 95, 4:4:4), .webp (lossless), .tif,
        .tiff or .bmp. A link is followed, an existing file is replaced and keeps its mode bits.
    array : ndarray, uint8 or uint16
        H x W grey, H x W x 3 RGB or H x W x 4 RGBA (.png, .webp and .tif only). Only .png and
        .tif hold 16 bits; for the others the pixels are scaled to 8 bits.
    metadata : Metadata, optional
        Profile, EXIF, XMP and resolution to put into the file. A .bmp gets none of them.

    Raises
    ------
    ImageError
        See `check_writable`; or the array does not fit the format.
    WriteError
        The disk is full.
    """
    try:
        target = _target(Path(path))
        write_whole(target, encode_image(path, array, metadata))
    except OSError as error:
        raise WriteError(path, error.strerror) from error


def encode_image(
    path: str | Path,
    array: np.ndarray,
    metadata: Metadata | None = None,
    premultiplied: bool = False,
) -> bytes:
    """Return what `write_image` would write. Raises `ImageError` if it does not fit the format.

    With `premultiplied` the colours of RGBA are multiplied with alpha. A .tif says so; the others
    cannot.
    """
    encoded = _encode(Path(path), array, premultiplied)
    return insert_metadata(encoded, metadata or Metadata())


def check_writable(path: str | Path) -> None:
    """Raise `ImageError` if `write_image` could not write here, before work is done in vain.

    Looks at the suffix and at what is there, and tries the folder.
    """
    try:
        check_folder(_target(Path(path)).parent)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written ({error.strerror}); choose another folder or name"
        ) from error


def _decode(path: Path, data: bytes, mode: int) -> np.ndarray:
    """Decode to uint8 or uint16 in OpenCV's order of channels, not turned (but for a TIFF)."""
    name = image_format(data)
    _size(path, data)
    if name == "TIFF":
        _check_no_raw(path, data)
        data = exif.say_premultiplied(data)
    with silent_opencv():
        try:
            # From memory, not imread: with a file OpenCV fills what a cut JPEG lacks with grey.
            image = cv2.imdecode(np.frombuffer(data, np.uint8), mode | _AS_STORED)
        except cv2.error:
            image = None
    if image is None and name == "TIFF":
        raise ImageError(
            f"{path}: this TIFF is damaged, cut short or of an unsupported kind (such as "
            "Zstandard, LZMA, 32-bit grey, 16-bit CMYK, saved selections); copy it again, or save "
            "it with 8 or 16 bits, in RGB or grey, with at most one alpha channel, uncompressed or "
            "with LZW or ZIP"
        )
    if image is None:
        raise _damaged(path, name, "it cannot be decoded to the end")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: has {image.dtype} pixels; expected 8 or 16 bits; convert it")
    if name == "TIFF":
        _check_tiff(path, data, image.dtype == np.uint16)
    return image


def _size(path: Path, data: bytes) -> tuple[int, int]:
    try:
        height, width = image_size(data)
    except HeaderError as error:
        raise _damaged(path, image_format(data), str(error)) from error
    check_pixels(path, "is", height, width)
    return height, width


def _check_no_raw(path: Path, tiff: bytes) -> None:
    """Refuse what begins with a preview, which OpenCV would read: cameras' raws, and DNGs."""
    is_reduced = exif.number(tiff, exif.NEW_SUBFILE_TYPE) & exif.REDUCED
    if is_reduced or exif.number(tiff, exif.DNG_VERSION):
        raise _unknown(path, "camera raw")


def _check_tiff(path: Path, tiff: bytes, is_deep: bool) -> None:
    """Refuse TIFFs that OpenCV misreads.

    libtiff gives L*a*b* a colour cast, and of 16 bits OpenCV expects interleaved pixels, with black
    as 0.
    """
    tags = exif.PHOTOMETRIC, exif.PLANAR_CONFIGURATION, exif.SAMPLES
    photometric, planes, samples = (exif.number(tiff, tag) for tag in tags)
    if photometric == exif.CIELAB:
        raise ImageError(f"{path}: this TIFF is in L*a*b* colours; save it in RGB")
    if not is_deep:
        return
    if planes == exif.SEPARATE and samples > 1:
        raise ImageError(
            f"{path}: this 16-bit TIFF stores its channels one after another (planar); "
            "save it interleaved (per pixel), or as .png"
        )
    if photometric == exif.WHITE_IS_ZERO:
        raise ImageError(
            f"{path}: this 16-bit TIFF stores white as 0; save it with black as 0, or as .png"
        )


def _grey(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the grey of a trimap in OpenCV's BGR or BGRA, if it holds nothing else."""
    if pixels.shape[2] == 4:
        least, most, *_ = cv2.minMaxLoc(cv2.extractChannel(pixels, 3))
        if least != most:
            raise ImageError(f"{path}: its mask is in the alpha channel; save that channel as grey")
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    if cv2.norm(pixels, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), cv2.NORM_INF) > COLOUR_NOISE:
        raise ImageError(
            f"{path}: is in colour; expected grey: black for background, white for the object"
        )
    return grey


# OpenCV turns nothing but TIFF, which it always does: in the others it looks for the orientation in
# some places only, and what is written says that it is upright.
_AS_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_SIDEWAYS, _UPSIDE_DOWN, _BOTH = 1, 0, -1
_FLIPS = {2: _SIDEWAYS, 3: _BOTH, 4: _UPSIDE_DOWN, 6: _SIDEWAYS, 7: _BOTH, 8: _UPSIDE_DOWN}


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture upright: EXIF's 2 to 4 mirror it, 5 to 8 first change rows and columns."""
    if orientation > 4:
        image = cv2.transpose(image)
    return cv2.flip(image, _FLIPS[orientation]) if orientation in _FLIPS else image


def _read_bytes(path: Path) -> bytes:
    """Read the whole file, but only if its first bytes show that it is an image at all."""
    try:
        with path.open("rb") as file:
            data = file.read(64)
            if image_format(data) is not None:
                return data + file.read()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the name") from error
    except (IsADirectoryError, PermissionError) as error:  # on Windows a folder is the latter
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; expected an image file") from error
        raise ImageError(f"{path}: may not be read; check its permissions") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise ImageError(f"{path}: is empty (0 bytes); expected an image; copy it again")
    if name := other_format(data):
        raise _unknown(path, name)
    raise ImageError(f"{path}: is not an image of a known format; expected {_FORMATS}")


def _unknown(path: Path, name: str) -> ImageError:
    return ImageError(f"{path}: its format is {name}; expected {_FORMATS}; convert it first")


def _damaged(path: Path, name: str | None, reason: str) -> ImageError:
    return ImageError(f"{path}: this {name} is damaged or cut short ({reason}); copy it again")


def _encode(path: Path, array: np.ndarray, premultiplied: bool) -> bytes:
    suffix = path.suffix.lower()
    channels = 1 if array.ndim == 2 else array.shape[-1]
    is_image = array.ndim in (2, 3) and channels in (1, 3, 4)
    if array.dtype not in (np.uint8, np.uint16) or not is_image:
        raise ImageError(
            f"{path}: cannot write a {array.dtype} array of shape {array.shape}; "
            "expected uint8 or uint16, H x W, H x W x 3 or H x W x 4"
        )
    if channels == 4 and suffix not in ALPHA_SUFFIXES:
        raise ImageError(
            f"{path}: {path.suffix} does not keep an alpha channel; use {', '.join(ALPHA_SUFFIXES)}"
        )
    if suffix not in DEEP_SUFFIXES:
        array = to_depth(array, np.uint8)
    to_bgr = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if channels in to_bgr:
        array = cv2.cvtColor(array, to_bgr[channels])
    options = _FULL_CHROMA if suffix in (".jpg", ".jpeg") else ()
    try:
        done, encoded = cv2.imencode(suffix, array, options)
    except cv2.error:
        done = False
    if not done:
        raise ImageError(f"{path}: shape {array.shape} does not fit {path.suffix}; use .png")
    data = encoded.tobytes()
    is_tiff_with_alpha = channels == 4 and suffix in (".tif", ".tiff")
    return declare_alpha(data, premultiplied) if is_tiff_with_alpha else data


def _target(path: Path) -> Path:
    """Return the file that will be written, links followed, after checking that it can be."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ImageError(
            f"{path}: the suffix {path.suffix!r} names no known format; "
            f"use one of {', '.join(WRITABLE_SUFFIXES)}"
        )
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise ImageError(f"{path}: there is no folder {path.parent}; create it first")
    if target.exists() and not target.is_file():
        raise ImageError(f"{path}: exists and is not a file; choose another name")
    return target


def check_sides(path: Path, height: int, width: int) -> None:
    """Raise ImageError if the format that a path's suffix names takes no picture so long."""
    largest = LARGEST_SIDES.get(path.suffix.lower(), MAX_PIXELS)
    if max(height, width) > largest:
        raise ImageError(
            f"{path}: {width} x {height} pixels do not fit {path.suffix}, which takes {largest} on "
            "a side; use .png"
        )


def check_pixels(path: Path, what: str, height: int, width: int) -> None:
    """Raise ImageError if what "is", or "its frames are", has more than ``MAX_PIXELS``."""
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{path}: {what} {width} x {height} pixels; expected at most "
            f"{MAX_PIXELS // 1_000_000} megapixels; make it smaller first"
        )


@contextlib.contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV's own log of a damaged file off the terminal: the error says it in one line.

    The level is the process's: it comes back when the last of the threads that are in here leaves.
    """
    with _changing_level:
        _levels_before.append(opencv_log.getLogLevel())
        opencv_log.setLogLevel(0)  # LOG_LEVEL_SILENT
    try:
        yield
    finally:
        with _changing_level:
            opencv_log.setLogLevel(_levels_before.pop())


# Where OpenCV 4.13 moved it.
opencv_log = getattr(cv2.utils, "logging", cv2)
_changing_level = threading.Lock()
_levels_before: list[int] = []
