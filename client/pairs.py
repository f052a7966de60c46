"""Which photo goes with which trimap: by name in two folders, or by a CSV list."""

import csv
import functools
import glob
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from client.job import Pair
from matting.images import WRITABLE_SUFFIXES

OUTPUT_SUFFIX = ".png"


class PairError(ValueError):
    """The pairs cannot be listed; the message is one line for the user."""


def is_many(source: str) -> bool:
    """Whether a command line's IMAGE names many: a folder, a CSV list or a glob."""
    path = Path(source)
    return path.is_dir() or (not path.is_file() and _is_glob(source)) or _is_list(path)


def find_pairs(
    source: str, trimaps: Path | None, folders: Mapping[str, Path]
) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    """List the pairs of a folder, a glob or a CSV file, in the order of their names.

    Parameters
    ----------
    source : str
        A folder (searched with its subfolders) or a glob such as ``photos/**/*.jpg``, both with
        folders that are links; or a CSV file with the columns ``image`` and ``trimap``, relative to
        the CSV file. A column ``output`` may say where the outputs go below their folders, and
        its suffix, in what format.
    trimaps : Path or None
        Folder of the trimaps: ``photos/a/cat.jpg`` goes with ``trimaps/a/cat.png``. None for a CSV.
    folders : dict of str to Path
        Where ``alpha``, ``cutout`` and ``composite`` go: ``a/cat.png`` below each.

    Returns
    -------
    list of Pair, list of (Pair, str)
        The pairs, and those that cannot be made, with the reason: a photo without a trimap or with
        several, photos whose outputs would have the same name or lie outside of their folders, and
        folders that cannot be read.

    Raises
    ------
    PairError
        Nothing was found, the folders do not go together, or an output would replace an input.
    """
    from_list = _is_list(Path(source))
    if from_list == (trimaps is not None):
        raise PairError(
            f"{source} names the trimaps itself: leave --trimaps out"
            if from_list
            else f"{source} holds many photos: name the folder of their trimaps with --trimaps"
        )
    if trimaps is None:
        _check_folders([], folders)
        found = _read_list(Path(source))
    else:
        root = _root(source)
        if not trimaps.is_dir():
            raise PairError(f"--trimaps {trimaps} is not a folder")
        if trimaps.resolve() == root.resolve():
            raise PairError(f"{root}: photos and trimaps need folders of their own")
        _check_folders([root, trimaps], folders)
        found = _pair_by_name(source, root, trimaps, folders.values())
    if not found:
        raise PairError(f"no photos in {source}")
    pairs, problems = _name_outputs(found, folders)
    _check_outputs(source, pairs)
    return pairs, problems


class _Found(NamedTuple):
    image: Path
    trimap: Path
    place: Path  # below the output folders
    problem: str = ""


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.is_dir()


def _is_glob(source: str) -> bool:
    return glob.has_magic(source)


def _root(source: str) -> Path:
    """The part of a folder or a glob before its first wildcard."""
    if Path(source).is_dir():
        return Path(source)
    fixed: list[str] = []
    for part in Path(source).parts:
        if _is_glob(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _check_folders(inputs: list[Path], folders: Mapping[str, Path]) -> None:
    taken = {folder.resolve() for folder in inputs}
    for kind, folder in folders.items():
        if folder.resolve() in taken:
            raise PairError(f"--{kind} {folder} is used already: it needs a folder of its own")
        taken.add(folder.resolve())


def _pair_by_name(source: str, root: Path, trimaps: Path, outputs: Iterable[Path]) -> list[_Found]:
    by_name = defaultdict(list)
    for trimap in images_below(trimaps, "**")[0]:
        by_name[trimap.relative_to(trimaps).with_suffix("")].append(trimap)
    pattern = "**" if Path(source).is_dir() else str(Path(source).relative_to(root))
    photos, closed = images_below(root, pattern)
    # Trimaps and earlier outputs may lie below the photos' folder.
    real = functools.cache(os.path.realpath)
    others = {real(folder) for folder in (trimaps, *outputs)}
    found = []
    for name in (photo.relative_to(root) for photo in photos):
        if not any(real(root / folder) in others for folder in name.parents):
            trimap, problem = _choose(
                by_name[name.with_suffix("")], (trimaps / name).with_suffix(OUTPUT_SUFFIX)
            )
            found.append(_Found(root / name, trimap, name.with_suffix(OUTPUT_SUFFIX), problem))
    for error in closed:
        name = Path(error.filename).relative_to(root)
        problem = f"what is in this folder cannot be listed ({error.strerror})"
        found.append(_Found(root / name, trimaps / name, name, problem))
    return found


def _choose(trimaps: list[Path], like: Path) -> tuple[Path, str]:
    if not trimaps:
        return like, f"no trimap {like.with_suffix('.*')}"
    if len(trimaps) > 1:
        return like, f"several trimaps ({', '.join(path.name for path in trimaps)}), expected one"
    return trimaps[0], ""


def images_below(root: Path, pattern: str) -> tuple[list[Path], list[OSError]]:
    """Image files that a glob finds, by their suffix; and what kept some from being looked for.

    In the order of their names. Hidden ones, and those in hidden folders, are leftovers of a crash
    or another program's. Links to folders are followed.
    """
    parts = Path(pattern).parts
    if parts[-1] == "**":
        parts = (*parts, "*")
    errors: list[OSError] = []
    return _images(root, _walk(root, {parts}, errors.append)), errors


def _walk(
    folder: Path,
    patterns: set[tuple[str, ...]],
    tell: Callable[[OSError], None],
    above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[Path]:
    """List files that match below a folder. Links to folders are followed, but not back up."""
    try:
        place = folder.stat()
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        tell(error)
        return
    identity = place.st_dev, place.st_ino
    if identity in above:
        return
    for entry in entries:
        left = {rest for pattern in patterns for rest in _after(entry.name, pattern)}
        # Path.is_dir raises where a link leads into a closed folder.
        if not os.path.isdir(entry):  # noqa: PTH112
            if () in left:
                yield Path(entry)
        elif (below := left - {()}) and not _is_hidden(Path(entry.name)):
            yield from _walk(Path(entry), below, tell, above | {identity})


def _after(name: str, pattern: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield what is left of a glob's parts, in each way that they begin with a name."""
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        yield pattern
        yield from _after(name, rest)
    elif fnmatchcase(name, first):
        yield rest


def _images(root: Path, paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in WRITABLE_SUFFIXES
        and not _is_hidden(path.relative_to(root))
        and _may_be_file(path)
    )


def _may_be_file(path: Path) -> bool:
    """Whether it is a file, or a link to what cannot be looked at: who reads that will say why."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _is_hidden(path: Path) -> bool:
    return any(part[0] == "." for part in path.parts)


def _read_list(path: Path) -> list[_Found]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error) as error:
        raise PairError(f"{path}: cannot be read ({error})") from error
    if any(not row.get("image") or not row.get("trimap") for row in rows):
        raise PairError(f"{path}: expected a first line `image,trimap`, and both in every line")
    return [
        _Found(path.parent / row["image"], path.parent / row["trimap"], *_place(row))
        for row in rows
    ]


def _place(row: Mapping[str, str]) -> tuple[Path, str]:
    """Return where the outputs of a list's line go, and what is wrong with that."""
    if row.get("output"):
        output = Path(row["output"])
        if _is_elsewhere(output) or not output.name:
            return output, f"the output {output} is not below the output folders"
        is_writable = output.suffix.lower() in WRITABLE_SUFFIXES
        return output if is_writable else output.with_suffix(OUTPUT_SUFFIX), ""
    # A photo keeps its folder; one from elsewhere keeps its name only.
    image = Path(row["image"])
    return Path(image.name if _is_elsewhere(image) else image).with_suffix(OUTPUT_SUFFIX), ""


def _is_elsewhere(path: Path) -> bool:
    return path.is_absolute() or ".." in path.parts


def _name_outputs(
    found: list[_Found], folders: Mapping[str, Path]
) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    photos_of = Counter(one.place for one in found if not one.problem)
    pairs, problems = [], []
    for image, trimap, place, problem in found:
        pair = Pair(image, trimap, {kind: folder / place for kind, folder in folders.items()})
        if photos_of[place] > 1:
            problem = f"{photos_of[place]} photos would become {place}, rename all but one"
        if problem:
            problems.append((pair, f"{image}: {problem}"))
        else:
            pairs.append(pair)
    return pairs, problems


def _check_outputs(source: str, pairs: list[Pair]) -> None:
    """Refuse to replace an input, or to take one for an output that is there already."""
    folder_of = functools.cache(os.path.realpath)

    def name(path: Path) -> Path:
        return Path(folder_of(path.parent), path.name)

    inputs = {name(path) for pair in pairs for path in (pair.image, pair.trimap)}
    for pair in pairs:
        for path in pair.outputs.values():
            if name(path) in inputs:
                raise PairError(f"{path}: is an input of {source}; choose another output folder")
