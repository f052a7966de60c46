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
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from matting.images import ImageError, WriteError, check_pixels, to_depth

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
PIXEL_FORMATS = {1: ("gray", "gray"), 3: ("rgb24", "bgr0"), 4: ("rgba", "bgra")}
"""Names of ours and FFV1's, by channels."""

Sides = tuple[int, int]
"""Width and height in pixels."""


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
    """

    frames: int
    sides: Sides
    are_apart: bool


def measure_video(path: Path) -> Measured:
    """Decode a video from its first frame to its last.

    Raises
    ------
    ImageError
        It cannot be read or is damaged, its frames differ in size, or they are larger than
        `matting.images.MAX_PIXELS`.
    """
    sides, times = (0, 0), []
    with _opened(path) as (container, stream):
        check_pixels(path, "its frames are", stream.height, stream.width)
        for frame, time in _timed(path, container, stream):
            sides = _sides(frame)
            times.append(_milliseconds(time))
    if not times:
        raise ImageError(f"{path}: none of its frames can be read; is it damaged or cut short?")
    return Measured(len(times), sides, len(set(times)) == len(times))


@contextmanager
def read_video(path: Path) -> Iterator[tuple[Fraction, Iterator[tuple[np.ndarray, float]]]]:
    """Open a video; give its frames a second, on average, and its frames.

    Those are upright RGB, H x W x 3 uint8, with their times in seconds, in the order in which they
    are shown.

    Raises
    ------
    ImageError
        As `measure_video`, or a frame's colours cannot be converted.
    """
    with _opened(path) as (container, stream):
        timed = _timed(path, container, stream)
        yield _rate(stream), ((_to_rgb(path, frame), time) for frame, time in timed)


@contextmanager
def write_video(
    path: Path, rate: Fraction, name: Path
) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Make a video; give a function that adds a frame at a time in seconds, later than the last's.

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
    Frames are H x W grey, H x W x 3 RGB or H x W x 4 RGBA, all of them as the first. Those of
    uint16 are scaled to uint8.
    """
    container = av.open(str(path), "w")
    stream = container.add_stream("ffv1", rate, time_base=MILLISECOND)

    def write(image: np.ndarray, time: float) -> None:
        image = to_depth(image, np.uint8)
        ours, stored = PIXEL_FORMATS[image[0, 0].size]
        if not stream.codec_context.is_open:
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt = stored
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
        matrix = frame.side_data.get("DISPLAYMATRIX")
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


def _to_rgb(path: Path, frame: av.VideoFrame) -> np.ndarray:
    """Return the upright pixels of a frame, H x W x 3."""
    try:
        pixels = frame.to_ndarray(format="rgb24", interpolation=TO_RGB)
    except av.FFmpegError as error:
        raise ImageError(
            f"{path}: its colours ({frame.format.name}, colour space {frame.colorspace}) cannot "
            f"be converted ({error.strerror}); convert it to BT.709 first"
        ) from error
    if _is_mirrored(frame):
        pixels = pixels[::-1]
    return np.ascontiguousarray(np.rot90(pixels, _turns(frame)))


@contextmanager
def _naming(name: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise WriteError(name, error.strerror) from error
