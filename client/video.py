"""A video, or a folder of frames, and a trimap or mask for each frame in; videos or frames out.

Every frame is a photo of its own: the network knows nothing of the one before. Sound is left out.
Videos are read and written by FFmpeg's libraries, which PyAV brings along. They are written as FFV1
in Matroska: without loss, with transparency, and read by common programs.
"""

import os
import re
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from client.connection import Matte
from client.in_order import in_order
from client.job import Options, Pair, matte_photo, metadata_for, trimap_for, without_white
from client.pairs import PairError, images_in
from client.request import Request
from matting.files import whole
from matting.images import (
    ImageError,
    Photo,
    WriteError,
    check_pixels,
    read_photo,
    read_size,
    read_trimap,
    to_depth,
    write_image,
)
from matting.metadata import Metadata
from matting.trimaps import FOREGROUND, NEARLY_KNOWN, has_unknown

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
WRITTEN_SUFFIX = ".mkv"
DEFAULT_FPS = 25.0
"""Frames a second of a video that is made of pictures."""
MIN_FPS, MAX_FPS = 0.01, 1000.0
"""Its rates: Matroska's times are whole milliseconds."""

READING = {"format_whitelist": "mov,matroska,avi", "protocol_whitelist": "file"}
"""For FFmpeg: a playlist that is named .mp4 must not open other files, nor connections."""
MILLISECOND = Fraction(1, 1000)
"""Matroska's unit of time."""
TO_RGB = 0x4 | 0x2000 | 0x40000
"""swscale's bicubic, full chroma and accurate rounding: without, all is up to 2 levels too dark."""
PIXEL_FORMATS = {1: ("gray", "gray"), 3: ("rgb24", "bgr0"), 4: ("rgba", "bgra")}
"""Names of ours and FFV1's, by channels."""

Writer = Callable[[np.ndarray, Metadata | None, float], None]
"""Takes the frames of one output in their order, with their metadata and their times in seconds."""


def is_video(source: str, outputs: Mapping[str, Path]) -> bool:
    """Whether a command line's IMAGE is a video file, or a folder of frames to make videos of."""
    path = Path(source)
    if path.is_dir():
        return makes_video(outputs)
    return path.suffix.lower() in VIDEO_SUFFIXES


def makes_video(outputs: Mapping[str, Path]) -> bool:
    """Whether an output is a video file."""
    return any(path.suffix.lower() == WRITTEN_SUFFIX for path in outputs.values())


def list_frames(pair: Pair, options: Options) -> list[Path]:
    """Return the trimap of each frame, once everything is checked that can be before the work.

    Parameters
    ----------
    pair : Pair
        Its image is a video file or a folder of frames. Its trimap is a folder with as many images
        as there are frames: they go together in the order of their names, in which 9 comes before
        10. So do the frames of a folder. Each output is a .mkv file or a folder for frames, which
        is new or empty.
    options : Options

    Raises
    ------
    ImageError
        The video cannot be read or is damaged, its frames are larger than
        `matting.images.MAX_PIXELS`, a trimap has another size, or no mask has any white.
    PairError
        The number of trimaps is another, frames and trimaps have numbers that do not go together, a
        folder cannot be listed, frames are too close for a .mkv, or an output cannot be what it is
        said to be.
    """
    video, folder = pair.image, pair.trimap
    for path in pair.outputs.values():
        _check_output(path)
    trimaps = _in_natural_order(folder) if folder.is_dir() else []
    frames = _in_natural_order(video) if video.is_dir() else None
    measured = _measure_file(video) if frames is None else _measure_pictures(video, frames)
    if len(trimaps) != measured.frames:
        raise PairError(
            f"{video} has {measured.frames} frames and {folder} {len(trimaps)} images; "
            "expected one for each"
        )
    if makes_video(pair.outputs) and not measured.are_apart:
        raise PairError(
            f"{video}: has frames less than a millisecond apart, which a {WRITTEN_SUFFIX} cannot "
            "keep; give a folder for frames instead"
        )
    if frames is not None:
        _check_numbers(frames, trimaps)
    for trimap in trimaps:
        _check_sides(trimap, video, measured.sides)
    if options.mask:
        _check_masks(folder, trimaps)
    return trimaps


def matte_video(
    pair: Pair,
    trimaps: list[Path],
    matte: Matte,
    options: Options,
    jobs: int,
    request: Request,
    fps: float = DEFAULT_FPS,
) -> Generator[bool, None, None]:
    """Matte a video with `jobs` frames under way, by the trimaps that `list_frames` returned.

    Yields for each frame, when it is written, whether its trimap has unknown pixels.

    The frames keep their order and times. All outputs take their places together after the last
    frame; on any failure, and where the iterator is closed before, there are none. `request` names
    all frames to the server, and counts how often one was turned away. `fps` is for a folder of
    frames.

    Raises
    ------
    ImageError, ServerError, OSError
    """

    video, outputs = pair.image, pair.outputs

    def work(marked: tuple[_Frame, Path]) -> tuple[dict[str, np.ndarray], _Frame, bool]:
        frame, trimap = marked
        pixels = frame.photo.pixels
        trimap_of_frame = trimap_for(trimap, pixels, video, options)
        made = matte_photo(outputs, pixels, trimap_of_frame, matte, options, request)
        return made, frame, has_unknown(trimap_of_frame)

    with ExitStack() as all_or_none:
        partial = {
            kind: all_or_none.enter_context(whole(path, follow_symlinks=True))
            for kind, path in outputs.items()
        }
        with ExitStack() as files:
            rate, frames = files.enter_context(_frames_of(video, fps))
            write = {
                kind: files.enter_context(_writer(path, outputs[kind], rate))
                for kind, path in partial.items()
            }
            pool = ThreadPoolExecutor(jobs)
            files.callback(pool.shutdown, wait=False, cancel_futures=True)
            made = in_order(pool, work, zip(frames, trimaps, strict=True), 2 * jobs)
            files.enter_context(closing(made))
            for images, frame, asked in made:
                for kind, image in images.items():
                    write[kind](image, metadata_for(kind, frame.photo.metadata), frame.time)
                yield asked


class _Frame(NamedTuple):
    photo: Photo
    time: float  # in seconds


class _Measured(NamedTuple):
    """What is to be known of frames before the work."""

    frames: int
    sides: tuple[int, int]  # width and height; of a picture, before EXIF rotation
    are_apart: bool = True  # by a millisecond each


def _measure_file(video: Path) -> _Measured:
    sides, times = (0, 0), []
    with _opened(video) as (container, stream):
        check_pixels(video, "its frames are", stream.height, stream.width)
        for frame, time in _timed(_decoded(video, container, stream), _rate(stream)):
            sides = _sides(frame)
            times.append(_milliseconds(time))
    if not times:
        raise ImageError(f"{video}: none of its frames can be read; is it damaged or cut short?")
    return _Measured(len(times), sides, len(set(times)) == len(times))


def _measure_pictures(folder: Path, pictures: list[Path]) -> _Measured:
    if not pictures:
        raise PairError(f"no frames in {folder}")
    height, width = read_size(pictures[0])
    return _Measured(len(pictures), (width, height))


def _in_natural_order(folder: Path) -> list[Path]:
    """List the pictures of a folder by their names, numbers in them by value: 9 before 10."""

    def parts(path: Path) -> list[int | str]:
        # Text and digits take turns, so that like is compared with like.
        return [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)]

    return sorted(images_in(folder), key=parts)


def _check_numbers(frames: list[Path], trimaps: list[Path]) -> None:
    """Refuse a folder where one is missing of the frames and another one of the trimaps."""

    def numbers(paths: list[Path]) -> list[int]:
        return [int(number) for path in paths for number in re.findall(r"\d+", path.stem)[-1:]]

    of_frames, of_trimaps = numbers(frames), numbers(trimaps)
    if not len(set(of_frames)) == len(set(of_trimaps)) == len(frames):
        return  # they do not count
    offsets = [number - other for number, other in zip(of_frames, of_trimaps, strict=True)]
    for frame, trimap, offset in zip(frames, trimaps, offsets, strict=True):
        if offset != offsets[0]:
            raise PairError(
                f"{frame} would be paired with {trimap}, but {frames[0].name} with "
                f"{trimaps[0].name}; is one missing in each folder?"
            )


def _check_output(path: Path) -> None:
    if path.suffix.lower() != WRITTEN_SUFFIX:
        if path.suffix:
            raise PairError(f"{path}: expected a {WRITTEN_SUFFIX} or, for frames, a folder")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise PairError(f"{path}: exists already; give a new or empty folder for the frames")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise PairError(f"{path}: there is no folder {folder} to write to; create it first")
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PairError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _check_sides(trimap: Path, video: Path, sides: tuple[int, int]) -> None:
    height, width = read_size(trimap)
    if sorted((height, width)) != sorted(sides):  # before EXIF rotation
        raise ImageError(
            f"{video} is {sides[0]} x {sides[1]} but {trimap} is {width} x {height} pixels; "
            "expected the same size"
        )


def _check_masks(folder: Path, masks: list[Path]) -> None:
    """Refuse masks none of which has white. Single ones may have none: the object may leave."""
    brightest = 0
    for mask in masks:
        brightest = max(brightest, int(read_trimap(mask).max()))
        if brightest >= FOREGROUND - NEARLY_KNOWN:
            return
    raise without_white(folder, brightest)


@contextmanager
def _opened(video: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    if not video.is_file():
        raise ImageError(f"{video}: no such file; check the name")
    try:
        # With "file:", what comes before a colon in a name is no protocol.
        container = av.open(f"file:{video}", container_options=READING, metadata_errors="replace")
    except av.FFmpegError as error:
        raise ImageError(
            f"{video}: cannot be read as a video ({error.strerror}); is it damaged, or not one of "
            f"{', '.join(VIDEO_SUFFIXES)}?"
        ) from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            raise ImageError(f"{video}: has no video stream that can be read")
        # Else what refers to a missing frame is left out, or made up. Of H.264 that is told in
        # another way, and a sound clip that was cut out of another would be refused.
        if stream.codec_context.name != "h264":
            stream.codec_context.options = {"err_detect": "explode"}
        yield container, stream


def _decoded(
    video: Path, container: InputContainer, stream: VideoStream
) -> Iterator[av.VideoFrame]:
    """Yield the frames in the order in which they are shown, while they are whole and of one size.

    Raises
    ------
    ImageError
    """
    number, first = 1, None

    def damaged() -> ImageError:
        return ImageError(
            f"{video}: is damaged in frame {number} or soon after; to see more: "
            f"ffmpeg -v error -i {shlex.quote(str(video))} -f null -"
        )

    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise damaged()
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise damaged()
                first = first or _sides(frame)
                if _sides(frame) != first:
                    raise _of_another_size(f"{video}: frame {number}", _sides(frame), first)
                yield frame
                number += 1
    except av.FFmpegError as error:
        raise damaged() from error


def _sides(frame: av.VideoFrame) -> tuple[int, int]:
    """Return the width and height of an upright frame."""
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)


def _of_another_size(name: str, sides: tuple[int, int], first: tuple[int, int]) -> ImageError:
    return ImageError(
        f"{name} is {sides[0]} x {sides[1]} pixels, the first frame is {first[0]} x {first[1]}; "
        "expected all frames to have the same size"
    )


@contextmanager
def _frames_of(video: Path, fps: float) -> Iterator[tuple[Fraction, Iterator[_Frame]]]:
    """Open a video file or a folder; yield frames a second, on average, and the frames."""
    if video.is_dir():
        rate = Fraction(fps).limit_denominator(10**5)
        yield rate, _pictures(video, rate)
        return
    with _opened(video) as (container, stream):
        timed = _timed(_decoded(video, container, stream), _rate(stream))
        yield (
            _rate(stream),
            (_Frame(Photo(_to_rgb(video, frame), Metadata()), time) for frame, time in timed),
        )


def _rate(stream: VideoStream) -> Fraction:
    """Return frames a second, on average."""
    return stream.average_rate or Fraction(DEFAULT_FPS)


def _milliseconds(time: float) -> int:
    return round(time / float(MILLISECOND))


def _pictures(folder: Path, rate: Fraction) -> Iterator[_Frame]:
    first = None
    for number, path in enumerate(_in_natural_order(folder)):
        picture = read_photo(path)
        height, width, _ = picture.pixels.shape
        first = first or (width, height)
        if (width, height) != first:
            raise _of_another_size(f"{path}:", (width, height), first)
        yield _Frame(picture, float(number / rate))


def _timed(
    frames: Iterator[av.VideoFrame], rate: Fraction
) -> Iterator[tuple[av.VideoFrame, float]]:
    """Add times, in seconds. What an .avi says of them may be nothing, or out of order."""
    time = None
    for frame in frames:
        following = 0.0 if time is None else time + 1 / float(rate)
        is_later = frame.pts is not None and (time is None or frame.time > time)
        time = frame.time if is_later else following
        yield frame, time


def _to_rgb(video: Path, frame: av.VideoFrame) -> np.ndarray:
    """Return the upright pixels of a frame, H x W x 3."""
    try:
        pixels = frame.to_ndarray(format="rgb24", interpolation=TO_RGB)
    except av.FFmpegError as error:
        raise ImageError(
            f"{video}: its colours ({frame.format.name}, colour space {frame.colorspace}) cannot "
            f"be converted ({error.strerror}); convert it to BT.709 first"
        ) from error
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


@contextmanager
def _writer(path: Path, output: Path, rate: Fraction) -> Iterator[Writer]:
    """Write frames to the temporary place of an output, which is named where that fails."""
    if path.suffix.lower() != WRITTEN_SUFFIX:
        path.mkdir()
        names = (path / f"{number:06}.png" for number in count(1))

        def write_frame(image: np.ndarray, metadata: Metadata | None, _: float) -> None:
            with _naming(output):
                write_image(next(names), image, metadata)

        yield write_frame
        return
    container = av.open(str(path), "w")
    stream = container.add_stream("ffv1", rate, time_base=MILLISECOND)

    def write(image: np.ndarray, _: Metadata | None, time: float) -> None:
        image = to_depth(image, np.uint8)
        ours, stored = PIXEL_FORMATS[image[0, 0].size]
        if not stream.codec_context.is_open:
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt = stored
        frame = av.VideoFrame.from_ndarray(image, ours)
        frame.pts, frame.time_base = _milliseconds(time), MILLISECOND
        with _naming(output):
            container.mux(stream.encode(frame))  # FFV1 keeps no frame back

    try:
        yield write
    finally:
        with _naming(output):
            container.close()


@contextmanager
def _naming(output: Path) -> Iterator[None]:
    try:
        yield
    except (WriteError, av.FFmpegError) as error:
        raise WriteError(output, error.strerror) from error
