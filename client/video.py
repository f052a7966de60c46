"""A video, or a folder of frames, and a trimap or mask for each frame in; videos or frames out.

Every frame is a photo of its own: the network knows nothing of the one before. Sound is left out.
Videos are written as FFV1 in Matroska: the one codec without loss that OpenCV's packages always
have and that common programs read.
"""

import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from client.connection import Matte
from client.in_order import in_order
from client.job import Options, Pair, matte_photo, metadata_for, trimap_for
from client.pairs import PairError, images_in
from client.request import Request
from matting.files import whole
from matting.images import (
    ImageError,
    Photo,
    WriteError,
    check_pixels,
    read_image,
    read_photo,
    silent_opencv,
    to_depth,
    write_image,
)
from matting.metadata import Metadata
from matting.trimaps import has_unknown

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
WRITTEN_SUFFIX = ".mkv"
DEFAULT_FPS = 25.0
"""Frames a second of a video that is made of pictures."""
MIN_FPS, MAX_FPS = 0.01, 1000.0
"""OpenCV writes other rates than asked for beyond, or none at all, or waits for ever."""
CODEC = cv2.VideoWriter.fourcc(*"FFV1")

# FFmpeg's own words on a damaged file: ours say it in one line. Read when OpenCV loads FFmpeg.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

Writer = Callable[[np.ndarray, Metadata | None], None]
"""Takes the frames of one output in their order, with the metadata that belong to it."""


def is_video(source: str, outputs: Mapping[str, Path]) -> bool:
    """Whether a command line's IMAGE is a video file, or a folder of frames to make videos of."""
    path = Path(source)
    if path.is_dir():
        return makes_video(outputs)
    return path.suffix.lower() in VIDEO_SUFFIXES


def makes_video(outputs: Mapping[str, Path]) -> bool:
    """Whether an output is a video file."""
    return any(path.suffix.lower() == WRITTEN_SUFFIX for path in outputs.values())


def list_frames(pair: Pair) -> list[Path]:
    """Return the trimap of each frame, once nothing speaks against the work.

    Parameters
    ----------
    pair : Pair
        Its image is a video file or a folder of frames. Its trimap is a folder with as many images
        as there are frames: they go together in the order of their names, in which 9 comes before
        10. So do the frames of a folder. Each output is a .mkv file or a folder for frames, which
        is new or empty. A cut-out has to be a folder.

    Raises
    ------
    ImageError
        The video cannot be read, or its frames are larger than `matting.images.MAX_PIXELS`.
    PairError
        The number of trimaps is another, a folder cannot be listed, the frames' times are none that
        a written video could have, or an output cannot be what it is said to be.
    """
    video, trimaps = pair.image, pair.trimap
    measured = (_measure_pictures if video.is_dir() else _measure_file)(video)
    found = _in_natural_order(trimaps) if trimaps.is_dir() else []
    if len(found) != measured.frames:
        raise PairError(
            f"{video} has {measured.frames} frames and {trimaps} {len(found)} images; "
            "expected one for each"
        )
    for kind, path in pair.outputs.items():
        _check_output(kind, path, measured.sides)
    if makes_video(pair.outputs) and not measured.is_steady:
        raise PairError(
            f"{video}: its frame rate varies, which a {WRITTEN_SUFFIX} would not keep; "
            "name a folder for frames"
        )
    return found


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

    The frames keep their order. All outputs take their places together after the last frame; on
    any failure, and where the iterator is closed before, there are none. `request` names all frames
    to the server, and counts how often one was turned away. `fps` is for a folder of frames.

    Raises
    ------
    ImageError, ServerError, OSError
    """

    video, outputs = pair.image, pair.outputs

    def work(marked: tuple[Photo, Path]) -> tuple[dict[str, np.ndarray], Metadata, bool]:
        frame, trimap = marked
        trimap_of_frame = trimap_for(trimap, frame.pixels, video, options)
        made = matte_photo(outputs, frame.pixels, trimap_of_frame, matte, options, request)
        return made, frame.metadata, has_unknown(trimap_of_frame)

    with ExitStack() as all_or_none:
        partial = {
            kind: all_or_none.enter_context(whole(path, follow_symlinks=True))
            for kind, path in outputs.items()
        }
        with ExitStack() as files:
            rate, frames = files.enter_context(_frames_of(video, fps))
            if makes_video(outputs) and not MIN_FPS <= rate <= MAX_FPS:
                raise ImageError(
                    f"{video}: says it has {rate:g} frames a second, expected {MIN_FPS:g} to "
                    f"{MAX_FPS:g}; name a folder for frames"
                )
            write = {
                kind: files.enter_context(_writer(path, rate)) for kind, path in partial.items()
            }
            pool = ThreadPoolExecutor(jobs)
            files.callback(pool.shutdown, wait=False, cancel_futures=True)
            made = in_order(pool, work, zip(frames, trimaps, strict=True), 2 * jobs)
            files.enter_context(closing(made))
            for images, metadata, asked in made:
                for kind, image in images.items():
                    try:
                        write[kind](image, metadata_for(kind, metadata))
                    except WriteError as error:  # names the temporary file
                        raise WriteError(outputs[kind], error.strerror) from error
                yield asked
        for kind, path in partial.items():
            _check_whole(path, outputs[kind], len(trimaps))


class _Measured(NamedTuple):
    """What is to be known of frames before the work: how many, how large, and when they come."""

    frames: int
    sides: tuple[int, int]  # width and height
    is_steady: bool = True


def _measure_file(video: Path) -> _Measured:
    with _opened(video) as capture:
        width, height = int(capture.get(_WIDTH)), int(capture.get(_HEIGHT))
        check_pixels(video, "its frames are", height, width)
        rate, times = capture.get(cv2.CAP_PROP_FPS), list(_times(capture))
    if not times:
        raise ImageError(f"{video}: none of its frames can be read; is it damaged or cut short?")
    return _Measured(len(times), (width, height), _are_steady(times, rate))


def _measure_pictures(folder: Path) -> _Measured:
    pictures = _in_natural_order(folder)
    if not pictures:
        raise PairError(f"no frames in {folder}")
    height, width, _ = read_image(pictures[0]).shape
    return _Measured(len(pictures), (width, height))


_WIDTH, _HEIGHT = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT


def _times(capture: cv2.VideoCapture) -> Iterator[float]:
    """Yield when each frame that is left comes, in milliseconds.

    They are counted by it, too: what is decoded may be fewer than the header says.
    """
    while capture.grab():
        yield capture.get(cv2.CAP_PROP_POS_MSEC)


def _are_steady(times: list[float], rate: float) -> bool:
    """Whether each frame comes within half a frame of where the rate has it, from the first on."""
    rounding = rate / 1000  # Matroska's times are whole milliseconds
    latest = times[0]
    for number, time in enumerate(times):
        # The last frames of an .avi, and all of a bare stream, may have no times: OpenCV says 0.
        if time > latest and abs((time - times[0]) * rate / 1000 - number) > 0.5 + rounding:
            return False
        latest = max(latest, time)
    return True


def _in_natural_order(folder: Path) -> list[Path]:
    """List the pictures of a folder by their names, numbers in them by value: 9 before 10."""

    def parts(path: Path) -> list[int | str]:
        # Text and digits take turns, so that like is compared with like.
        return [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)]

    return sorted(images_in(folder), key=parts)


def _check_output(kind: str, path: Path, sides: tuple[int, int]) -> None:
    if path.suffix.lower() != WRITTEN_SUFFIX:
        if path.suffix:
            raise PairError(f"{path}: write a {WRITTEN_SUFFIX} or, for frames, name a folder")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise PairError(f"{path}: exists already; name a new or empty folder for the frames")
    elif kind == "cutout":
        raise PairError(f"{path}: a {WRITTEN_SUFFIX} has no transparency; name a folder for frames")
    elif any(side % 2 for side in sides):
        raise PairError(
            f"{path}: frames are {sides[0]} x {sides[1]} pixels, a {WRITTEN_SUFFIX} needs even "
            "sides; name a folder for frames"
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise PairError(f"{path}: there is no folder {path.parent} to write to; create it first")


@contextmanager
def _opened(video: Path) -> Iterator[cv2.VideoCapture]:
    if not video.is_file():
        raise ImageError(f"{video}: no such file; check the name")
    with silent_opencv():
        capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise ImageError(
                f"{video}: cannot be read as a video; is it damaged, or of a rare kind?"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # phones store what is upright sideways
        yield capture
    finally:
        capture.release()


@contextmanager
def _frames_of(video: Path, fps: float) -> Iterator[tuple[float, Iterator[Photo]]]:
    """Open a video file or a folder; yield frames a second, and the frames."""
    if video.is_dir():
        yield fps, _pictures(video)
        return
    with _opened(video) as capture:
        yield capture.get(cv2.CAP_PROP_FPS), _decoded(capture)


def _pictures(folder: Path) -> Iterator[Photo]:
    first = None
    for path in _in_natural_order(folder):
        picture = read_photo(path)
        height, width, _ = picture.pixels.shape
        first = first or (height, width)
        if (height, width) != first:
            raise ImageError(
                f"{path}: is {width} x {height} pixels, the first frame is "
                f"{first[1]} x {first[0]}; expected frames of one size"
            )
        yield picture


def _decoded(capture: cv2.VideoCapture) -> Iterator[Photo]:
    while True:
        found, frame = capture.read()
        if not found:
            return
        yield Photo(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), Metadata())


@contextmanager
def _writer(path: Path, rate: float) -> Iterator[Writer]:
    if path.suffix.lower() != WRITTEN_SUFFIX:
        path.mkdir()
        names = iter(range(1, 10**6))
        yield lambda image, metadata: write_image(path / f"{next(names):06}.png", image, metadata)
        return
    video: cv2.VideoWriter | None = None

    def write(image: np.ndarray, _: Metadata | None) -> None:
        nonlocal video
        image = to_depth(image, np.uint8)
        if video is None:
            size = image.shape[1], image.shape[0]
            video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, CODEC, rate, size, image.ndim == 3)
            if not video.isOpened():
                raise WriteError(path, "FFmpeg cannot begin it")
        video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image)

    try:
        yield write
    finally:
        if video is not None:
            video.release()


def _check_whole(written: Path, output: Path, frames: int) -> None:
    """Count what was written for an output: OpenCV says nothing when the disk is full."""
    if written.is_dir():
        return
    count = 0
    with suppress(ImageError), _opened(written) as capture:
        count = len(list(_times(capture)))
    if count != frames:
        raise WriteError(output, f"it has only {count} of {frames} frames; is the disk full?")
