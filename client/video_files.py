"""Video files: frames and their times, read from the common formats and written without loss.

FFmpeg's libraries do both; PyAV brings them along. What is written is FFV1 in Matroska: it keeps
transparency, and common programs read it.
"""

import shlex
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from matting.images import ImageError, Photo, WriteError, check_pixels
from matting.metadata import HDR, Metadata

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
WRITTEN_SUFFIX = ".mkv"
DEFAULT_FPS = 25.0
"""Frames a second of a video that does not state them, and of one that is made of pictures."""
MIN_FPS, MAX_FPS = 0.01, 1000.0
"""Rates that can be written: Matroska's times are whole milliseconds."""

READING = {"format_whitelist": "mov,matroska,avi", "protocol_whitelist": "file"}
"""For FFmpeg: a playlist that is named .mp4 must not open other files, nor connections."""
MILLISECOND = Fraction(1, 1000)
"""Matroska's unit of time."""
TO_RGB = 0x4 | 0x2000 | 0x40000
"""swscale's bicubic, full chroma and accurate rounding: without, all is up to 2 levels too dark."""
PIXEL_FORMATS = {
    (1, np.uint8): ("gray", "gray"),
    (3, np.uint8): ("rgb24", "bgr0"),
    (4, np.uint8): ("rgba", "bgra"),
    (3, np.uint16): ("rgb48le", "gbrp12le"),
    (4, np.uint16): ("rgba64le", "gbrap12le"),
}
"""Names of ours and FFV1's. Cameras have 10 or 12 bits; 16 would double the file's size."""

TO_SDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=mobius,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p10le"
)
"""FFmpeg's filters for it; 203 cd/m² is white."""
WIDE_GAMUTS = 9, 11, 12
"""Colour primaries, numbered as in ITU-T H.273: BT.2020, DCI-P3 and Display P3."""

Sides = tuple[int, int]
"""Width and height in pixels."""
Writer = Callable[[np.ndarray, float, Metadata], None]
"""Takes the frames of one output in their order, with their times in seconds and their metadata."""


class Measured(NamedTuple):
    """What is to be known of a video before the work.

    Attributes
    ----------
    frames : int
        How many it has.
    sides : (int, int)
        Their width and height, upright.
    are_apart : bool
        Whether no two have the same time to the millisecond: a file that is written has no other.
    hdr : str
        One of the names of `matting.metadata.HDR`, or empty.
    """

    frames: int
    sides: Sides
    are_apart: bool
    hdr: str


class Frame(NamedTuple):
    """A frame and its time in seconds."""

    photo: Photo
    time: float


def measure_video(path: Path) -> Measured:
    """Decode a video from its first frame to its last.

    Raises
    ------
    ImageError
        It cannot be read or is damaged, its frames differ in size, or they are larger than
        `matting.images.MAX_PIXELS`.
    """
    sides, hdr, times = (0, 0), "", []
    with _opened(path) as (container, stream):
        check_pixels(path, "its frames are", stream.height, stream.width)
        for frame, time in _timed(path, container, stream):
            sides, hdr = _sides(frame), hdr or HDR.get(frame.color_trc, "")
            times.append(_milliseconds(time))
    if not times:
        raise ImageError(f"{path}: none of its frames can be read; is it damaged or cut short?")
    return Measured(len(times), sides, len(set(times)) == len(times), hdr)


@contextmanager
def read_video(path: Path) -> Iterator[tuple[Fraction, Iterator[Frame]]]:
    """Open a video; give its frames a second, on average, and its frames as they are shown.

    Their pixels are uint16 if the video has more than 8 bits, else uint8.

    Raises
    ------
    ImageError
        As `measure_video`, or a frame's colours cannot be converted.
    """
    with _opened(path) as (container, stream):
        timed = _timed(path, container, stream)
        yield _rate(stream), (Frame(_to_photo(path, frame), time) for frame, time in timed)


@contextmanager
def write_video(path: Path, rate: Fraction, name: Path) -> Iterator[Writer]:
    """Make a video; give a function that adds a frame at a time later than the last's.

    Parameters
    ----------
    path : Path
        Its place, whose suffix is `WRITTEN_SUFFIX`.
    rate : Fraction
        Frames a second, on average.
    name : Path
        What to call it in errors.

    Raises
    ------
    WriteError
        By the function, or at the end: the disk is full.

    Notes
    -----
    Frames are H x W grey (uint8), H x W x 3 RGB or H x W x 4 RGBA, all of them as the first. Of
    those of uint16, 12 bits are kept. Of the first one's metadata, `cicp` is kept.
    """
    container = av.open(str(path), "w")
    stream = container.add_stream("ffv1", rate, time_base=MILLISECOND)
    assert isinstance(stream, av.VideoStream)  # which PyAV 17's types do not tell

    def write(image: np.ndarray, time: float, metadata: Metadata) -> None:
        ours, stored = PIXEL_FORMATS[image[0, 0].size, image.dtype.type]
        context = stream.codec_context
        if not context.is_open:
            context.height, context.width = image.shape[:2]
            context.pix_fmt = stored
            if metadata.cicp:
                context.color_primaries, context.color_trc = metadata.cicp[:2]
        frame = av.VideoFrame.from_ndarray(image, ours)
        frame.pts, frame.time_base = _milliseconds(time), MILLISECOND
        with _naming(name):
            container.mux(stream.encode(frame))  # FFV1 keeps no frame back

    try:
        yield write
    finally:
        with _naming(name):
            container.close()


def check_same_sides(name: str, sides: Sides, first: Sides) -> None:
    """Raise `ImageError` for a frame, called `name`, that is not as large as the first."""
    if sides != first:
        raise ImageError(
            f"{name} is {sides[0]} x {sides[1]} pixels, the first frame is {first[0]} x "
            f"{first[1]}; expected all frames to have the same size"
        )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    if not path.is_file():
        raise ImageError(f"{path}: no such file; check the name")
    try:
        # With "file:", what comes before a colon in a name is no protocol.
        container = av.open(f"file:{path}", container_options=READING, metadata_errors="replace")
    except av.FFmpegError as error:
        raise ImageError(
            f"{path}: cannot be read as a video ({error.strerror}); is it damaged, or not one of "
            f"{', '.join(VIDEO_SUFFIXES)}?"
        ) from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            raise ImageError(f"{path}: has no video stream that can be read")
        # Else what refers to a missing frame is left out, or made up. Of H.264 that is told in
        # another way, and a sound clip that was cut out of another would be refused.
        if stream.codec_context.name != "h264":
            stream.codec_context.options = {"err_detect": "explode"}
        yield container, stream


def _timed(
    path: Path, container: InputContainer, stream: VideoStream
) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yield the frames with their times. What an .avi says of these may be nothing, or no order."""
    time, pause = None, 1 / float(_rate(stream))
    for frame in _decoded(path, container, stream):
        following = 0.0 if time is None else time + pause
        is_later = frame.pts is not None and (time is None or frame.time > time)
        time = frame.time if is_later else following
        yield frame, time


def _decoded(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames in the order in which they are shown, while they are whole and of one size.

    Raises
    ------
    ImageError
    """
    number, first = 1, None

    def damaged() -> ImageError:
        return ImageError(
            f"{path}: is damaged in frame {number} or soon after; to see more: "
            f"ffmpeg -v error -i {shlex.quote(str(path))} -f null -"
        )

    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise damaged()
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise damaged()
                first = first or _sides(frame)
                check_same_sides(f"{path}: frame {number}", _sides(frame), first)
                yield frame
                number += 1
    except av.FFmpegError as error:
        raise damaged() from error


def _sides(frame: av.VideoFrame) -> Sides:
    """Return the width and height of a frame once it is turned."""
    sides = frame.width, frame.height
    return sides[::-1] if _turns(frame) % 2 else sides


def _turns(frame: av.VideoFrame) -> int:
    """Return by how many right angles a frame is to be turned to the left."""
    return round(frame.rotation / 90)


def _is_mirrored(frame: av.VideoFrame) -> bool:
    """Whether a frame is to be mirrored, so that its last row comes first, before it is turned."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives no side data where it does not know some of it, such as EXIF
        return False
    if matrix is None:
        return False
    a, b, _, c, d, *_ = struct.unpack("9i", matrix)
    return a * d < b * c


def _rate(stream: VideoStream) -> Fraction:
    return stream.average_rate or Fraction(DEFAULT_FPS)


def _milliseconds(time: float) -> int:
    return round(time / float(MILLISECOND))


def _to_photo(path: Path, frame: av.VideoFrame) -> Photo:
    try:
        pixels = _to_rgb(frame)
    except av.FFmpegError as error:
        raise ImageError(
            f"{path}: its colours ({frame.format.name}, colour space {frame.colorspace}) cannot "
            f"be converted ({error.strerror}); convert it to BT.709 first"
        ) from error
    if _is_mirrored(frame):
        pixels = pixels[::-1]
    upright = np.ascontiguousarray(np.rot90(pixels, _turns(frame)))
    return Photo(upright, Metadata(cicp=_code_points(frame)))


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return the pixels of a frame as stored, H x W x 3: uint16 if it has more than 8 bits."""
    if max(component.bits for component in frame.format.components) <= 8:
        return frame.to_ndarray(format="rgb24", interpolation=TO_RGB)
    pixels: np.ndarray = frame.to_ndarray(format="rgb48le", interpolation=TO_RGB)
    if frame.format.is_rgb or frame.color_range == ColorRange.JPEG:
        return pixels
    return cv2.add(pixels, pixels >> 8)  # of limited range, swscale makes white 255 * 256


def _code_points(frame: av.VideoFrame) -> bytes:
    """Return `Metadata.cicp` of colours that would be taken for BT.709 if nothing were said."""
    primaries, transfer = frame.color_primaries, frame.color_trc
    if transfer in HDR or primaries in WIDE_GAMUTS:
        return bytes([primaries, transfer, 0, 1])
    return b""


@contextmanager
def _naming(name: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise WriteError(name, error.strerror) from error
