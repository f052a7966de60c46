"""Looking at every file of a data set: what is broken, does not fit, or is there twice."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from matting.images import ImageError, read_cutout, read_gray, read_image, read_trimap
from matting.trimaps import BACKGROUND, FOREGROUND, check_trimap, has_unknown, is_unknown
from train.compose import digest, digest_of_all
from train.layouts import (
    Pair,
    Photograph,
    composition_1k_foregrounds,
    find_files,
    is_composition_1k,
    photographs_folder,
    read_manifest,
    required,
)

TRAINING, TEST = "training", "test"


@dataclass
class Seen:
    """What was found in one picture, its files together.

    `faults` make a data set wrong; `notes` only tell. `pixels` is a digest of what must not be
    there twice, `matte` that of an alpha that must not be both in training and in the test,
    `fingerprint` a test picture's own, as in its manifest. `soft` and `unknown` are shares.
    """

    files: tuple[Path, ...]
    size: tuple[int, int] | None = None
    soft: float | None = None
    unknown: float | None = None
    pixels: str | None = None
    matte: str | None = None
    fingerprint: str | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """Pictures of one kind."""

    name: str
    use: str
    pictures: list[Seen]


@dataclass(frozen=True)
class Report:
    """What was found in a data set. `sha256` is its test set's, as in a manifest of ours."""

    parts: list[Part]
    faults: list[str]
    notes: list[str]
    sha256: str | None


def check(data: Path) -> Report:
    """Look at every file of a data set.

    Raises `DataError` where there are no pictures, or what belongs together cannot be told: a file
    of a pair is missing, or a list or manifest is damaged.
    """
    folder = photographs_folder(data)
    _, composed = read_manifest(folder)
    parts = required(list(look(data)), data, "any place where a data set has them")
    seen = [picture for part in parts for picture in part.pictures]
    digests = {p.files[0].stem: p.fingerprint for p in seen if p.fingerprint}
    return Report(
        parts,
        [
            *(fault for picture in seen for fault in picture.faults),
            *same_pictures(seen),
            *leaked_mattes(parts),
            *changed(folder, composed, digests),
        ],
        [note for picture in seen for note in picture.notes],
        digest_of_all(digests) if digests else None,
    )


def look(data: Path) -> Iterator[Part]:
    """Look at all files of a data set, part by part."""
    files = find_files(data)
    kinds: list[tuple[str, str, Callable, list]] = [
        ("cut-outs", TRAINING, look_at_cutout, [(path,) for path in files.cutouts]),
        ("foregrounds", TRAINING, look_at_foreground, files.pairs),
        ("backgrounds", TRAINING, look_at_background, [(path,) for path in files.backgrounds]),
        ("photographs", TEST, look_at_photograph, files.photographs),
    ]
    if is_composition_1k(data) and not files.photographs:
        foregrounds = composition_1k_foregrounds(data)
        kinds.append(("test foregrounds", TEST, look_at_test_foreground, foregrounds))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, use, function, pictures in kinds:
            if pictures:
                looks = pool.map(guarded, [function] * len(pictures), pictures)
                bar = tqdm(looks, name, len(pictures), unit="picture", disable=None)
                yield Part(name, use, list(bar))


def guarded(function: Callable[[tuple], Seen], files: tuple[Path, ...]) -> Seen:
    """Look at a picture; what cannot be read is a fault of it."""
    try:
        return function(files)
    except ImageError as error:
        return Seen(files, faults=[str(error)])


def look_at_cutout(files: tuple[Path]) -> Seen:
    return look_at_layers(files, *read_cutout(files[0]))


def look_at_foreground(files: Pair) -> Seen:
    seen = look_at_layers(files, read_image(files[0]), read_gray(files[1]))
    note_colour(seen, files[1])
    return seen


def look_at_layers(files: tuple[Path, ...], colour: np.ndarray, alpha: np.ndarray) -> Seen:
    """Look at a foreground, H×W×3 and H×W uint8."""
    seen = Seen(files, alpha.shape, soft=soft_share(alpha))
    if colour.shape[:2] != alpha.shape:
        seen.faults.append(f"{files[-1]}: {of_size(alpha)}, {files[0].name} {of_size(colour)}")
    if seen.soft:
        seen.matte = digest(alpha)
    else:
        seen.notes.append(f"{files[-1]}: no soft edge; it will not be used")
    seen.pixels = digest(colour, alpha)
    return seen


def look_at_background(files: tuple[Path]) -> Seen:
    image = read_image(files[0])
    return Seen(files, image.shape[:2], pixels=digest(image))


def look_at_photograph(files: Photograph) -> Seen:
    """Look at a photograph with its trimap and alpha, and at how the two fit each other."""
    image, trimap, alpha = read_image(files[0]), read_trimap(files[1]), read_gray(files[2])
    seen = Seen(files, image.shape[:2], soft_share(alpha), float(is_unknown(trimap).mean()))
    seen.pixels, seen.matte = digest(image), digest(alpha) if seen.soft else None
    seen.fingerprint = digest(image, trimap, alpha)
    for path, pixels in zip(files[1:], (trimap, alpha), strict=True):
        if pixels.shape != image.shape[:2]:
            seen.faults.append(f"{path}: {of_size(pixels)}, its image {of_size(image)}")
    if not seen.faults:
        judge_trimap(seen, files[1], trimap, alpha)
    note_colour(seen, files[2])
    return seen


def look_at_test_foreground(files: tuple[Path, ...]) -> Seen:
    """Look at a test foreground of Composition-1k, yet to be composed, and all its trimaps."""
    seen = look_at_foreground(files[:2])
    for path in files[2:]:
        trimap = read_trimap(path)
        if trimap.shape != seen.size:
            seen.faults.append(
                f"{path}: {of_size(trimap)}, its alpha {seen.size[1]} x {seen.size[0]}"
            )
    return seen


def note_colour(seen: Seen, path: Path) -> None:
    """Note an alpha in colour: it may be a picture that lies in the wrong folder."""
    if np.ptp(read_image(path), axis=2).any():
        seen.notes.append(f"{path}: is in colour; its luma is taken for alpha")


def judge_trimap(seen: Seen, path: Path, trimap: np.ndarray, alpha: np.ndarray) -> None:
    """Note what is odd in a trimap."""
    complaint = check_trimap(trimap)
    if complaint:
        seen.faults.append(f"{path}: {complaint}")
    elif not has_unknown(trimap):
        seen.notes.append(f"{path}: nothing is unknown")
    wrong = ((trimap == BACKGROUND) & (alpha > 0)) | ((trimap == FOREGROUND) & (alpha < 255))
    if wrong.any():
        seen.notes.append(f"{path}: {wrong.mean():.2%} of the pixels are known, but alpha differs")


def same_pictures(seen: list[Seen]) -> Iterator[str]:
    """Name pictures that are there twice, even in different file formats."""
    first: dict[str, Path] = {}
    for picture in seen:
        path = picture.files[0]
        if picture.pixels and (same := first.setdefault(picture.pixels, path)) is not path:
            yield f"{path}: the same picture as {same}"


def leaked_mattes(parts: list[Part]) -> Iterator[str]:
    """Name test pictures whose subject is also in the training set."""
    learnt = {p.matte: p.files[-1] for part in parts if part.use == TRAINING for p in part.pictures}
    for part in parts:
        for picture in part.pictures if part.use == TEST else []:
            if picture.matte and picture.matte in learnt:
                yield f"{picture.files[-1]}: the same alpha as {learnt[picture.matte]}, in training"


def changed(folder: Path, composed: dict[str, str], digests: dict[str, str]) -> Iterator[str]:
    """Name test pictures that differ from what the manifest, if any, says was composed."""
    for name in composed | digests if composed else ():
        if composed.get(name) != digests.get(name):
            yield f"{folder}: {name} is not as it was composed"


def soft_share(alpha: np.ndarray) -> float:
    return float(is_unknown(alpha).mean())


def of_size(pixels: np.ndarray) -> str:
    return f"is {pixels.shape[1]} x {pixels.shape[0]} pixels"
