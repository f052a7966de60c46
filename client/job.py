"""One photo and its trimap in; alpha, cut-out and composite out, all or none."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from client.connection import Matte, TileOption
from client.request import Request
from matting.compositing import composite, cutout, fit_background
from matting.files import whole, write_to_disk
from matting.foreground import estimate_foreground
from matting.images import (
    ALPHA_SUFFIXES,
    ImageError,
    Photo,
    WriteError,
    check_sides,
    check_writable,
    encode_image,
    read_photo,
    read_trimap,
    to_depth,
)
from matting.metadata import Metadata
from matting.trimaps import (
    FOREGROUND,
    MASK_BAND,
    NEARLY_KNOWN,
    check_trimap,
    has_unknown,
    is_unknown,
    quantize,
    trimap_from_mask,
)

OUTPUTS = ("alpha", "cutout", "composite")
"""What can be made of a pair."""


@dataclass(frozen=True)
class Pair:
    """A photo, its trimap, and the files to make from them.

    Attributes
    ----------
    image, trimap : Path
        The trimap may be a mask: see `Options`.
    outputs : dict of str to Path
        Some of ``alpha``, ``cutout`` and ``composite``, and where each goes.
    """

    image: Path
    trimap: Path
    outputs: Mapping[str, Path]

    def is_done(self) -> bool:
        """Whether every output is there, and not empty."""
        return all(path.is_file() and path.stat().st_size > 0 for path in self.outputs.values())

    def is_outdated(self) -> bool:
        """Whether an output, of those that are all there, is older than the photo or the trimap."""
        made = min(map(os.path.getmtime, self.outputs.values()))
        with suppress(OSError):  # photos may have been moved away since
            return made < max(map(os.path.getmtime, (self.image, self.trimap)))
        return False


class Band(NamedTuple):
    """Unknown band along a mask's edge: radii as `matting.trimaps.trimap_from_mask` takes them."""

    erode: float = MASK_BAND
    dilate: float = MASK_BAND


@dataclass(frozen=True)
class Options:
    """What is the same for every pair of a run.

    Attributes
    ----------
    background : ndarray or None
        RGB, uint8 or uint16, of any size; composites are made on it.
    premultiplied : bool
        Multiply a cut-out's colours with alpha.
    quantize : bool
        Turn a trimap with other values than 0, 128 and 255 into one with only these.
    mask : Band or None
        The trimaps are masks: make trimaps of them with an unknown band of this width.
    tile : "auto", "off" or int
        See `client.connection.Matte.alpha`.
    views : 1, 2 or 4
    knn, half : bool
        See there, too.
    show_progress : bool
        Show a progress bar for each photo that is sent as tiles.
    """

    background: np.ndarray | None = None
    premultiplied: bool = False
    quantize: bool = False
    mask: Band | None = None
    tile: TileOption = "auto"
    views: int = 1
    knn: bool = False
    half: bool = False
    show_progress: bool = False


def read_pair(pair: Pair, options: Options) -> tuple[Photo, np.ndarray]:
    """Read a photo and read or make its trimap (uint8, H x W).

    Raises
    ------
    ImageError
        One of the files is missing, broken, or not what it should be.
    """
    photo = read_photo(pair.image)
    marked = _read_marked(pair.trimap, photo.pixels, pair.image)
    # Not asked of each frame of a video: the object may fade and leave.
    if options.mask and marked.max() < FOREGROUND - NEARLY_KNOWN:
        raise without_white(pair.trimap, marked.max())
    trimap = _to_trimap(marked, pair.trimap, options)
    if options.mask and is_unknown(trimap).all():
        raise ImageError(
            f"{pair.trimap}: all is unknown, because the band around this mask's edge is too wide; "
            "make it narrower (--erode, --dilate)"
        )
    if options.mask and trimap.min() == FOREGROUND:
        raise ImageError(
            f"{pair.trimap}: the mask is white everywhere; "
            "expected black for background and white for the object"
        )
    return photo, trimap


def without_white(masks: Path, brightest: int) -> ImageError:
    """Return what to raise for a mask, or a folder of masks, in which nothing is white."""
    return ImageError(
        f"{masks}: the mask's brightest value is {brightest}; expected black (0) for "
        "background and white (255) for the object"
    )


def trimap_for(path: Path, image: np.ndarray, name: Path, options: Options) -> np.ndarray:
    """Read or make the trimap (uint8, H x W) of an image (H x W x 3) that came from file `name`.

    Raises
    ------
    ImageError
        It cannot be read, is no trimap, or has another size.
    """
    return _to_trimap(_read_marked(path, image, name), path, options)


def _read_marked(path: Path, image: np.ndarray, name: Path) -> np.ndarray:
    marked = read_trimap(path)
    if image.shape[:2] != marked.shape:
        raise ImageError(
            f"{name} is {_size(image)} but {path} is {_size(marked)} pixels; "
            "expected the same size (EXIF rotation is applied to both: is it in only one of them?)"
        )
    return marked


def _to_trimap(marked: np.ndarray, path: Path, options: Options) -> np.ndarray:
    if options.mask:
        return trimap_from_mask(marked, *options.mask)
    if options.quantize:
        return quantize(marked)
    problem = check_trimap(marked)
    if problem:
        raise ImageError(f"{path}: {problem} (--quantize)")
    return marked


def check_composite(
    kinds: Iterable[str], hdr: str, name: Path, otherwise: str = "convert it first"
) -> None:
    """Raise ImageError if a composite is asked for of what is HDR: see `Metadata.hdr`."""
    if "composite" in kinds and hdr:
        raise ImageError(
            f"{name}: is HDR ({hdr}), a background is not; make a --cutout, or {otherwise}"
        )


def matte_pair(pair: Pair, matte: Matte, options: Options, request: Request) -> bool:
    """Make the outputs of one pair: all of them, or none and an exception.

    `request` names what is sent to the server, and counts how often that was turned away.

    Returns
    -------
    bool
        Whether anything was unknown; if not, the trimap itself is the alpha.

    Raises
    ------
    ImageError, ServerError, OSError
    """
    _check_outputs(pair)
    photo, trimap = read_pair(pair, options)
    check_composite(pair.outputs, photo.metadata.hdr, pair.image)
    for path in pair.outputs.values():
        check_sides(path, *trimap.shape)
    made = matte_photo(pair.outputs, photo.pixels, trimap, matte, options, request)
    write_outputs(pair.outputs, made, photo.metadata, options.premultiplied)
    return has_unknown(trimap)


def _check_outputs(pair: Pair) -> None:
    for kind, path in pair.outputs.items():
        check_writable(path)
        if kind == "cutout" and path.suffix.lower() not in ALPHA_SUFFIXES:
            raise ImageError(
                f"{path}: {path.suffix} has no transparency; use {', '.join(ALPHA_SUFFIXES)}"
            )


def matte_photo(
    kinds: Iterable[str],
    pixels: np.ndarray,
    trimap: np.ndarray,
    matte: Matte,
    options: Options,
    request: Request,
) -> dict[str, np.ndarray]:
    """Ask for the alpha of a photo, H x W x 3, with its trimap, H x W; return `make_outputs` of it.

    Raises
    ------
    ServerError
    """
    alpha = matte.alpha(
        to_depth(pixels, np.uint8),
        trimap,
        tile=options.tile,
        show_progress=options.show_progress,
        request=request,
        views=options.views,
        knn=options.knn,
        half=options.half,
    )
    return make_outputs(kinds, pixels, alpha, options)


def make_outputs(
    kinds: Iterable[str],
    pixels: np.ndarray,
    alpha: np.ndarray,
    options: Options,
    foreground: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Make some of `OUTPUTS`, by name.

    Parameters
    ----------
    kinds : iterable of str
    pixels : ndarray, H x W x 3 RGB, uint8 or uint16
    alpha : ndarray, H x W uint8
    options : Options
    foreground : ndarray, as the pixels, optional
        The foreground's own colours, if they are known already: else they are estimated.

    Returns
    -------
    dict of str to ndarray
        Cut-out (RGBA) and composite are as deep as the pixels; alpha has 256 steps in any of them.

    Raises
    ------
    ValueError
        A composite without a background.
    """
    kinds = set(kinds)
    made = {"alpha": alpha} if "alpha" in kinds else {}
    if not kinds & {"cutout", "composite"}:
        return made
    if foreground is None:
        foreground = estimate_foreground(pixels, alpha)
    if "cutout" in kinds:
        colours = foreground
        if options.premultiplied:
            colours = composite(alpha, foreground, np.zeros_like(foreground))
        made["cutout"] = cutout(colours, alpha)
    if "composite" in kinds:
        if options.background is None:
            raise ValueError("a composite is asked for, but options.background is None")
        background = fit_background(options.background, *alpha.shape)
        made["composite"] = composite(alpha, foreground, background)
    return made


def metadata_for(kind: str, metadata: Metadata) -> Metadata:
    """Return what an output keeps of its photo's: an alpha has no colours, and is no photo."""
    return Metadata(resolution=metadata.resolution) if kind == "alpha" else metadata


def write_outputs(
    outputs: Mapping[str, Path],
    made: Mapping[str, np.ndarray],
    metadata: Metadata,
    premultiplied: bool = False,
) -> None:
    """Write what `make_outputs` made; images move to their places only when all are written.

    Raises
    ------
    ImageError, OSError
    """
    with ExitStack() as all_or_none:
        for kind, image in made.items():
            path = outputs[kind]
            encoded = encode_image(path, image, metadata_for(kind, metadata), premultiplied)
            try:
                partial = all_or_none.enter_context(whole(path, follow_symlinks=True))
                write_to_disk(partial, encoded)
            except OSError as error:  # names the temporary file
                raise WriteError(path, error.strerror) from error


def _size(array: np.ndarray) -> str:
    height, width = array.shape[:2]
    return f"{width} x {height}"
