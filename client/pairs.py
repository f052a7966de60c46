"""Which photo goes with which trimap: by name in two folders, or by a CSV list."""

import csv
import functools
import glob
import itertools
import logging
import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from client.job import Pair
from matting.images import WRITABLE_SUFFIXES

OUTPUT_SUFFIX = ".png"
NAMES_SHOWN = 3

logger = logging.getLogger(__name__)


class PairError(ValueError):
    """The pairs cannot be listed; the message is one line for the user."""


def is_many(source: str) -> bool:
    """Whether a command line's IMAGE names many: a folder, a CSV list or a glob."""
    path = Path(source)
    return path.is_dir() or (not path.is_file() and glob.has_magic(source)) or _is_list(path)


def find_pairs(
    source: str, trimaps: Path | None, folders: Mapping[str, Path]
) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    """List the pairs of a folder, a glob or a CSV file, in the order of their names.

    Trimaps that no photo of a folder goes with are logged: with fewer photos than trimaps nothing
    need be wrong.

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
        several, a file of an unknown format for which there is a trimap, photos whose outputs would
        have the same name or lie outside of their folders, and folders that cannot be read.

    Raises
    ------
    PairError
        Nothing was found, the folders do not go together, or that of the trimaps cannot be listed.
    """
    from_list = _is_list(Path(source))
    if from_list == (trimaps is not None):
        raise PairError(
            f"{source} names the trimaps itself: leave out --trimaps"
            if from_list
            else f"{source} holds many photos: give the folder of their trimaps with --trimaps"
        )
    if trimaps is None:
        _check_folders([], folders)
        found = _read_list(Path(source))
    else:
        root = _root(source)
        if not trimaps.is_dir():
            raise PairError(f"--trimaps {trimaps} is not a folder")
        if trimaps.resolve() == root.resolve():
            raise PairError(f"{root}: photos and trimaps need separate folders")
        _check_folders([root, trimaps], folders)
        found = _pair_by_name(source, root, trimaps, folders.values())
    if not found:
        raise PairError(f"no photos in {source}")
    return _name_outputs(found, folders)


def check_outputs(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuse to replace an input or another output, or to take one for an existing output.

    Links are followed, as whoever writes follows them. Of a million files, only those that are
    links are looked at one by one.

    Raises
    ------
    PairError
    """
    folder_of, links_in = functools.cache(os.path.realpath), functools.cache(_links_in)

    def place(path: Path) -> tuple[str, str]:
        parent, name = os.path.split(path)
        folder = folder_of(parent)
        if name in ("", ".", "..") or name in links_in(folder):
            return os.path.split(os.path.realpath(path))
        return folder, name

    taken = {place(path) for path in inputs}
    for path in outputs:
        if (own := place(path)) in taken:
            raise PairError(f"{path}: is used already by this command; choose another name")
        taken.add(own)


def _links_in(folder: str) -> set[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_symlink()}
    return set()


class _Found(NamedTuple):
    image: Path
    trimap: Path
    place: Path  # below the output folders
    problem: str = ""


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.is_dir()


def _root(source: str) -> Path:
    """The part of a folder or a glob before its first wildcard."""
    path = Path(source)
    if path.is_dir():
        return path
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))


def _check_folders(inputs: list[Path], folders: Mapping[str, Path]) -> None:
    taken = set(map(os.path.realpath, inputs))
    for kind, folder in folders.items():
        if (own := os.path.realpath(folder)) in taken:
            raise PairError(f"--{kind} {folder} is used already: it needs a folder of its own")
        taken.add(own)


def _pair_by_name(source: str, root: Path, trimaps: Path, outputs: Iterable[Path]) -> list[_Found]:
    by_name = defaultdict(list)
    there, unlisted = _files_below(trimaps, "**")
    _check_listed(trimaps, unlisted)
    for trimap in _images(there):
        by_name[_name(trimap, trimaps)].append(trimap)
    pattern = "**" if Path(source).is_dir() else str(Path(source).relative_to(root))
    # Trimaps and earlier outputs may lie below the photos' folder.
    files, closed = _files_below(root, pattern, (trimaps, *outputs))
    found = []
    names = set()
    for photo in _images(files):
        name, place = _name(photo, root), photo.relative_to(root).with_suffix(OUTPUT_SUFFIX)
        names.add(name)
        trimap, problem = _choose(by_name.get(name, []), trimaps, place, unlisted)
        found.append(_Found(photo, trimap, place, problem))
    for error in closed:
        place = Path(error.filename).relative_to(root)
        problem = f"this folder cannot be listed ({error.strerror})"
        found.append(_Found(root / place, trimaps / place, place, problem))
    if Path(source).is_dir() and not closed:
        left = {name: paths for name, paths in by_name.items() if name not in names}
        if left:
            found += _of_unknown_formats(files, root, left)
            _tell_left_over(left)
    return found


def _name(file: Path, root: Path) -> str:
    """Return what photo and trimap have in common: Macs may write an umlaut as two characters."""
    # As of `relative_to` and `with_suffix`, which take ten times as long.
    below = (*file.parts[len(root.parts) : -1], file.stem)
    return unicodedata.normalize("NFC", "/".join(below))


def _of_unknown_formats(
    files: Iterable[Path], root: Path, trimaps: dict[str, list[Path]]
) -> Iterator[_Found]:
    """Yield files with the name of a trimap's photo but an unknown format; take those trimaps."""
    by_name = defaultdict(list)
    for file in files:
        name = _name(file, root)
        if name in trimaps:
            by_name[name].append(file)
    for name, (photo, *others) in sorted((name, sorted(group)) for name, group in by_name.items()):
        nor = f" (nor is that of {', '.join(other.name for other in others)})" if others else ""
        formats = ", ".join(WRITABLE_SUFFIXES)
        problem = f"has a trimap, but its format is not supported{nor}; save it as one of {formats}"
        place = Path(name + OUTPUT_SUFFIX)
        yield _Found(photo, trimaps.pop(name)[0], place, problem)


def _tell_left_over(trimaps: Mapping[str, list[Path]]) -> None:
    names = sorted(str(path) for paths in trimaps.values() for path in paths)
    if names:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        logger.warning(
            "trimaps without a photo: %d (%s%s)", len(names), ", ".join(names[:NAMES_SHOWN]), more
        )


def _choose(
    trimaps: list[Path], folder: Path, place: Path, unlisted: list[OSError]
) -> tuple[Path, str]:
    if len(trimaps) == 1:
        return trimaps[0], ""
    like = folder / place
    if not trimaps:
        for error in unlisted:
            if Path(error.filename) in like.parents:
                return like, f"{error.filename} cannot be listed ({error.strerror})"
        return like, f"no trimap {like.with_suffix('.*')}"
    return like, f"several trimaps ({', '.join(path.name for path in trimaps)}), expected one"


def images_in(folder: Path) -> list[Path]:
    """Image files in a folder, by their suffix, in the order of their names.

    Raises
    ------
    PairError
        It cannot be listed.
    """
    files, unlisted = _files_below(folder, "*")
    _check_listed(folder, unlisted)
    return _images(files)


def _check_listed(folder: Path, unlisted: list[OSError]) -> None:
    for error in unlisted:
        if Path(error.filename) == folder:
            raise PairError(f"{folder}: cannot be listed ({error.strerror})")


def _files_below(
    root: Path, pattern: str, left_out: Iterable[Path] = ()
) -> tuple[list[Path], list[OSError]]:
    """Files that a glob finds outside of some folders; and what kept some from being looked for.

    Hidden ones, and those in hidden folders, are leftovers of a crash or another program's. Links
    to folders are followed.
    """
    parts = Path(pattern).parts
    if parts[-1] == "**":
        parts = (*parts, "*")
    errors: list[OSError] = []
    passed_by = frozenset(_identity(folder) for folder in left_out if folder.is_dir())
    return list(_walk(root, {parts}, errors.append, passed_by)), errors


def _walk(
    folder: Path,
    patterns: set[tuple[str, ...]],
    tell: Callable[[OSError], None],
    passed_by: frozenset[tuple[int, int]],
) -> Iterator[Path]:
    """List files that match below a folder, but not in some folders.

    Links to folders are followed, but not back up.
    """
    try:
        identity = _identity(folder)
        if identity in passed_by:
            return
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        tell(error)
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        left = {rest for pattern in patterns for rest in _after(entry.name, pattern)}
        if _is_folder(entry):
            if below := left - {()}:
                yield from _walk(Path(entry), below, tell, passed_by | {identity})
        elif () in left and _may_be_file(entry):
            yield Path(entry)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _after(name: str, pattern: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield what is left of a glob's parts, in each way that they begin with a name."""
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        yield pattern
        yield from _after(name, rest)
    elif fnmatchcase(name, first):
        yield rest


def _images(paths: Iterable[Path]) -> list[Path]:
    images = (path for path in paths if path.suffix.lower() in WRITABLE_SUFFIXES)
    return sorted(images, key=lambda path: path.parts)  # as paths are sorted, but in half the time


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link may lead into a closed folder
        return entry.is_dir()
    return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to what cannot be looked at: who reads that will say why."""
    try:
        # Of all but links the listing of their folder knows it, without another look.
        return stat.S_ISREG(entry.stat().st_mode) if entry.is_symlink() else entry.is_file()
    except OSError:
        return True


def _read_list(path: Path) -> list[_Found]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = list(csv.DictReader(_lines_of(file, path)))
    except (OSError, csv.Error) as error:
        raise PairError(f"{path}: cannot be read ({error})") from error
    if any(not row.get("image") or not row.get("trimap") for row in rows):
        raise PairError(
            f"{path}: expected `image,trimap` as its first line, and both in every line"
        )
    return [
        _Found(path.parent / row["image"], path.parent / row["trimap"], *_place(row))
        for row in rows
    ]


def _lines_of(file: Iterable[str], path: Path) -> Iterator[str]:
    """Yield the lines of a text file, in whose paths no NUL can be."""
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise PairError(f"{path}: line {number} has a NUL byte; expected text in UTF-8")
        yield line


def _place(row: Mapping[str, str]) -> tuple[Path, str]:
    """Return where the outputs of a list's line go, and what is wrong with that."""
    image = Path(row["image"])
    if image.name in ("", ".."):
        return Path(), "is a folder; expected a photo"
    if row.get("output"):
        output = Path(row["output"])
        if _is_elsewhere(output) or not output.name:
            return output, f"the output {output} is not inside the output folders"
        is_writable = output.suffix.lower() in WRITABLE_SUFFIXES
        return output if is_writable else output.with_suffix(OUTPUT_SUFFIX), ""
    # A photo keeps its folder; one from elsewhere keeps its name only.
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
            problem = f"{photos_of[place]} photos would become {place}; rename all but one"
        if problem:
            problems.append((pair, f"{image}: {problem}"))
        else:
            pairs.append(pair)
    return pairs, problems
