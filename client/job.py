"""One photo and its trimap in; alpha, cut-out and composite out, all or none."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from client.connection import Matte, TileOption
from client.request import Request
from matting.compositing import composite, cutout, fit_background
from matting.foreground import estimate_foreground
from matting.images import (
    ALPHA_SUFFIXES,
    ImageError,
    check_writable,
    read_image,
    read_trimap,
    write_image,
)
from matting.trimaps import MASK_BAND, check_trimap, has_unknown, quantize, trimap_from_mask

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
        """Whether every output is there."""
        return all(path.is_file() for path in self.outputs.values())


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
        RGB uint8 of any size; composites are made on it.
    premultiplied : bool
        Multiply a cut-out's colours with alpha.
    quantize : bool
        Turn a trimap with other values than 0, 128 and 255 into one with only these.
    mask : Band or None
        The trimaps are masks: make trimaps of them with an unknown band of this width.
    tile : "auto", "off" or int
        See `client.connection.Matte.alpha`.
    show_progress : bool
        Show a progress bar for each photo that is sent as tiles.
    """

    background: np.ndarray | None = None
    premultiplied: bool = False
    quantize: bool = False
    mask: Band | None = None
    tile: TileOption = "auto"
    show_progress: bool = False


def read_pair(pair: Pair, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Read a photo (RGB uint8, H x W x 3) and read or make its trimap (uint8, H x W).

    Raises
    ------
    ImageError
        One of the files is missing, broken, or not what it should be.
    """
    image = read_image(pair.image)
    trimap = read_trimap(pair.trimap)
    if image.shape[:2] != trimap.shape:
        raise ImageError(
            f"{pair.image} is {_size(image)} but {pair.trimap} is {_size(trimap)} pixels; "
            "expected the same size (EXIF rotation is applied to both: is it in only one of them?)"
        )
    if options.mask:
        return image, _trimap_of(pair.trimap, trimap, options.mask)
    if options.quantize:
        return image, quantize(trimap)
    problem = check_trimap(trimap)
    if problem:
        raise ImageError(f"{pair.trimap}: {problem} (--quantize)")
    return image, trimap


def _trimap_of(path: Path, mask: np.ndarray, band: Band) -> np.ndarray:
    if mask.min() == mask.max():
        raise ImageError(
            f"{path}: the mask is {mask[0, 0]} everywhere; expected black for background and white "
            "for the object"
        )
    return trimap_from_mask(mask, *band)


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
    image, trimap = read_pair(pair, options)
    alpha = matte.alpha(image, trimap, options.tile, options.show_progress, request)
    _write_all(_make_outputs(pair, options, image, alpha))
    return has_unknown(trimap)


def _check_outputs(pair: Pair) -> None:
    for kind, path in pair.outputs.items():
        check_writable(path)
        if kind == "cutout" and path.suffix.lower() not in ALPHA_SUFFIXES:
            raise ImageError(
                f"{path}: {path.suffix} has no transparency; use {' or '.join(ALPHA_SUFFIXES)}"
            )


def _make_outputs(
    pair: Pair, options: Options, image: np.ndarray, alpha: np.ndarray
) -> dict[Path, np.ndarray]:
    made = {}
    if "alpha" in pair.outputs:
        made[pair.outputs["alpha"]] = alpha
    if pair.outputs.keys() & {"cutout", "composite"}:
        foreground = estimate_foreground(image, alpha)
    if "cutout" in pair.outputs:
        colours = foreground
        if options.premultiplied:
            colours = composite(alpha, foreground, np.zeros_like(foreground))
        made[pair.outputs["cutout"]] = cutout(colours, alpha)
    if "composite" in pair.outputs:
        background = fit_background(options.background, *alpha.shape)
        made[pair.outputs["composite"]] = composite(alpha, foreground, background)
    return made


def _write_all(images: Mapping[Path, np.ndarray]) -> None:
    """Write every image beside its place first, then move all of them there."""
    with ExitStack() as leftovers:
        staged = {}
        for path, image in images.items():
            target = path.resolve()  # a link is followed, not replaced
            folder = leftovers.enter_context(TemporaryDirectory(prefix=".", dir=target.parent))
            staged[target] = Path(folder, target.name)
            write_image(staged[target], image)
        for target, temporary in staged.items():
            temporary.replace(target)


def _size(array: np.ndarray) -> str:
    height, width = array.shape[:2]
    return f"{width} x {height}"
