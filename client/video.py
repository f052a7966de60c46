"""A video, or a folder of frames, and a trimap or mask for each frame in; videos or frames out.

Every frame is a photo of its own: the network knows nothing of the one before. Sound is left out.
"""

import os
import re
import shlex
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np

from client.connection import Matte
from client.in_order import in_order
from client.job import (
    Options,
    Pair,
    check_composite,
    matte_photo,
    metadata_for,
    trimap_for,
    without_white,
)
from client.pairs import PairError, images_in
from client.request import Request
from client.video_files import (
    DEFAULT_FPS,
    TO_SDR,
    VIDEO_SUFFIXES,
    WRITTEN_SUFFIX,
    Frame,
    Sides,
    Writer,
    check_same_sides,
    measure_video,
    read_video,
    write_video,
)
from matting.files import check_folder, whole
from matting.images import (
    ImageError,
    WriteError,
    read_photo,
    read_size,
    read_trimap,
    write_image,
)
from matting.metadata import Metadata
from matting.trimaps import FOREGROUND, NEARLY_KNOWN, has_unknown


def is_video(source: str, outputs: Mapping[str, Path]) -> bool:
    """Whether a command line's IMAGE is a video file, or a folder of frames to make videos of."""
    path = Path(source)
    if path.is_dir():
        return makes_video(outputs)
    return path.suffix.lower() in VIDEO_SUFFIXES


def makes_video(outputs: Mapping[str, Path]) -> bool:
    """Whether an output is a video file."""
    return any(path.suffix.lower() == WRITTEN_SUFFIX for path in outputs.values())


def list_trimaps(pair: Pair, options: Options) -> list[Path]:
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
        The trimap is no folder, the number of trimaps is another, frames and trimaps have numbers
        that do not go together, a folder cannot be listed, frames are too close for a .mkv, or an
        output cannot be what it is said to be.
    """
    video, folder = pair.image, pair.trimap
    for path in pair.outputs.values():
        _check_output(path)
    if not folder.is_dir():
        raise PairError(f"--trimaps {folder} is not a folder")
    trimaps = _in_natural_order(folder)
    if video.is_dir():
        sides = _check_pictures(video, folder, trimaps)
    else:
        sides = _check_video(pair, trimaps)
    for trimap in trimaps:
        _check_sides(trimap, video, sides)
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
    """Matte a video with `jobs` frames under way, by the trimaps that `list_trimaps` returned.

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

    def work(marked: tuple[Frame, Path]) -> tuple[dict[str, np.ndarray], Frame, bool]:
        frame, trimap = marked
        check_composite(outputs, frame.photo.metadata.hdr, video)
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
                    write[kind](image, frame.time, metadata_for(kind, frame.photo.metadata))
                yield asked


def _check_video(pair: Pair, trimaps: list[Path]) -> Sides:
    video = pair.image
    measured = measure_video(video)
    _check_count(video, measured.frames, pair.trimap, len(trimaps))
    if makes_video(pair.outputs) and not measured.are_apart:
        raise PairError(
            f"{video}: has frames less than a millisecond apart, which a {WRITTEN_SUFFIX} cannot "
            "keep; give a folder for frames instead"
        )
    to_sdr = f"ffmpeg -i {shlex.quote(str(video))} -vf {TO_SDR} -crf 12 sdr.mkv"
    check_composite(pair.outputs, measured.hdr, video, f"convert the video first: {to_sdr}")
    return measured.sides


def _check_pictures(video: Path, folder: Path, trimaps: list[Path]) -> Sides:
    frames = _in_natural_order(video)
    if not frames:
        raise PairError(f"no frames in {video}")
    _check_count(video, len(frames), folder, len(trimaps))
    _check_numbers(frames, trimaps)
    height, width = read_size(frames[0])
    return width, height


def _check_count(video: Path, frames: int, folder: Path, trimaps: int) -> None:
    if trimaps != frames:
        raise PairError(
            f"{video} has {frames} frames and {folder} {trimaps} images; expected one for each"
        )


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
        check_folder(folder)
    except OSError as error:
        raise PairError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _check_sides(trimap: Path, video: Path, sides: Sides) -> None:
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
def _frames_of(video: Path, fps: float) -> Iterator[tuple[Fraction, Iterator[Frame]]]:
    """Open a video file or a folder; give its frames a second, on average, and its frames."""
    if video.is_dir():
        rate = Fraction(fps).limit_denominator(10**5)
        yield rate, _pictures(video, rate)
        return
    with read_video(video) as opened:
        yield opened


def _pictures(folder: Path, rate: Fraction) -> Iterator[Frame]:
    first = None
    for number, path in enumerate(_in_natural_order(folder)):
        picture = read_photo(path)
        height, width, _ = picture.pixels.shape
        first = first or (width, height)
        check_same_sides(f"{path}:", (width, height), first)
        yield Frame(picture, float(number / rate))


@contextmanager
def _writer(path: Path, output: Path, rate: Fraction) -> Iterator[Writer]:
    """Write frames to the temporary place of an output, which is named where that fails."""
    if path.suffix.lower() == WRITTEN_SUFFIX:
        with write_video(path, rate, output) as add:
            yield add
        return
    path.mkdir()
    names = (path / f"{number:06}.png" for number in count(1))

    def write_picture(image: np.ndarray, _: float, metadata: Metadata) -> None:
        try:
            write_image(next(names), image, metadata)
        except WriteError as error:  # names the temporary file
            raise WriteError(output, error.strerror) from error

    yield write_picture
