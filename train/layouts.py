"""Where the pictures of a data set lie, in any of three layouts; and reading its photographs.

A data folder; `python -m train.data prepare` makes one of anything else:

    train/cutouts/*                          RGBA
    train/pairs/foreground/*, alpha/*        RGB and grey, paired by name without suffix
    train/backgrounds/*                      RGB
    val/image/*, trimap/*, alpha/*           paired by name without suffix

What mmediting's tools/data/matting/comp1k/preprocess_comp1k_dataset.py makes of Composition-1k:

    training_list.json, test_list.json       fg_path, alpha_path, bg_path, merged_path, trimap_path

Adobe Composition-1k as it is distributed, which has no backgrounds and no composites:

    Training_set/{Adobe-licensed images,Other}/{fg,alpha}/*, training_fg_names.txt
    Test_set/Adobe-licensed images/{fg,alpha,trimaps}/*, test_fg_names.txt, test_bg_names.txt
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matting.images import WRITABLE_SUFFIXES, read_gray, read_image, read_trimap

PICTURE_SUFFIXES = set(WRITABLE_SUFFIXES)
BACKGROUNDS_EACH = 20
"""So many composites has each foreground of the test set."""
COMPOSITION_1K, TEST_PICTURES = "Composition-1k", 1000
TEST_LIST, MANIFEST = "test_list.json", "manifest.json"

Pair = tuple[Path, Path]
"""A foreground's colours and its alpha."""
Photograph = tuple[Path, Path, Path]
"""An image, its trimap and its true alpha."""


class DataError(ValueError):
    """A data set is not what it should be; the message says how to fix it."""


@dataclass(frozen=True)
class Files:
    """What a data set has to learn from, and the photographs a network is judged by."""

    cutouts: list[Path]
    pairs: list[Pair]
    backgrounds: list[Path]
    photographs: list[Photograph]


@dataclass(frozen=True)
class Composite:
    """One picture of a test set that is yet to be composed.

    A cut-out is its own alpha. Without a trimap, one is drawn around the alpha.
    """

    name: str
    colour: Path
    alpha: Path
    background: Path
    trimap: Path | None = None


def find_files(data: Path) -> Files:
    """Find all files of a data set. Raises `DataError`, also where one of a pair is missing."""
    check_folder(data)
    listing, train = data / "training_list.json", data / "train"
    photographs = find_photographs(data)
    if listing.exists():
        entries = read_annotations(listing, "fg_path", "alpha_path", "bg_path")
        pairs = list(dict.fromkeys((colour, alpha) for colour, alpha, _ in entries))
        return Files([], pairs, list(dict.fromkeys(entry[2] for entry in entries)), photographs)
    if is_composition_1k(data):
        return Files([], composition_1k_pairs(data), [], photographs)
    return Files(
        pictures(train / "cutouts"),
        paired(train / "pairs/foreground", train / "pairs/alpha"),
        pictures(train / "backgrounds"),
        photographs,
    )


def find_photographs(data: Path) -> list[Photograph]:
    """Find a data set's photographs: in test_list.json, in `data` itself, or in its val/."""
    check_folder(data)
    if (data / TEST_LIST).exists():
        return read_annotations(data / TEST_LIST, "merged_path", "trimap_path", "alpha_path")
    folder = photographs_folder(data)
    return paired(folder / "image", folder / "trimap", folder / "alpha")


def read_photograph(files: Photograph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read an image H×W×3, its trimap and its true alpha H×W, uint8, which must be of one size."""
    image, trimap, alpha = read_image(files[0]), read_trimap(files[1]), read_gray(files[2])
    for path, pixels in zip(files[1:], (trimap, alpha), strict=True):
        if pixels.shape != image.shape[:2]:
            raise DataError(
                f"{path}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
                f"{image.shape[1]} x {image.shape[0]}"
            )
    return image, trimap, alpha


def photographs_folder(data: Path) -> Path:
    """Return the folder that holds image/, trimap/ and alpha/: `data` itself or its val/."""
    return data if (data / "image").is_dir() else data / "val"


def required(found: list, data: Path, where: str) -> list:
    """Return what was found, if anything."""
    if not found:
        raise DataError(
            f"{data}: no pictures in {where}; python -m train.data prepare --help shows how to "
            "make a data folder"
        )
    return found


def check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check the name")


def pictures(folder: Path) -> list[Path]:
    """Return the folder's pictures, sorted by name, hidden ones left out; none without a folder."""
    return sorted(p for p in folder.glob("[!.]*") if p.suffix.lower() in PICTURE_SUFFIXES)


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the folder's pictures by their names without suffix, which must differ."""
    found: dict[str, Path] = {}
    for path in pictures(folder):
        if (other := found.setdefault(path.stem, path)) is not path:
            raise DataError(f"{path}: {other.name} has the same name; rename or remove one")
    return found


def paired(*folders: Path) -> list[tuple[Path, ...]]:
    """Return files by names without suffix that stand in all folders; others are errors."""
    listings = [by_stem(folder) for folder in folders]
    names = sorted(set().union(*listings))
    for folder, listing in zip(folders, listings, strict=True):
        missing = [name for name in names if name not in listing]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise DataError(f"{folder}: no picture named {', '.join(missing[:5])}{more}")
    return [tuple(listing[name] for listing in listings) for name in names]


def evenly(items: list, count: int | None) -> list:
    """Return so many of the items, evenly chosen; all if there are no more, or with None."""
    count = len(items) if count is None else min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def read_annotations(listing: Path, *keys: str) -> list[tuple[Path, ...]]:
    """Return the files that one of mmediting's lists names under the keys."""
    try:
        entries = json.loads(listing.read_bytes())
        return [tuple(listing.parent / entry[key] for key in keys) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{listing}: is not a list of mmediting's ({error!r}); "
            f"each entry needs {', '.join(keys)}"
        ) from error


def is_composition_1k(folder: Path) -> bool:
    """Say if this is Composition-1k as it is distributed."""
    return (folder / "Training_set").is_dir() or (folder / "Test_set").is_dir()


def is_composition_1k_test(data: Path) -> bool:
    """Say if a data set's photographs are the whole test set of Composition-1k.

    mmediting's script makes its list of nothing else; ours keeps what it was made of.
    """
    if (data / TEST_LIST).exists():
        return len(read_annotations(data / TEST_LIST, "merged_path")) == TEST_PICTURES
    source, digests = read_manifest(photographs_folder(data))
    return source == COMPOSITION_1K and len(digests) == TEST_PICTURES


def read_manifest(folder: Path) -> tuple[str, dict[str, str]]:
    """Return what a test set was composed of, and its pictures' digests by name.

    Both are empty where no manifest tells. Raises `DataError` for one that is not ours.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return "", {}
    try:
        facts = json.loads(manifest.read_bytes())
        return facts["source"], dict(facts["pictures"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{manifest}: is not a manifest of python -m train.data prepare ({error!r}); "
            "remove it, or prepare the test set again"
        ) from error


def composition_1k_pairs(root: Path) -> list[Pair]:
    """Return the training foregrounds in the order of their list."""
    part = root / "Training_set"
    listing = part / "training_fg_names.txt"
    names = read_names(listing) if part.is_dir() else []
    check_stems(names, listing)
    folders = [part / "Adobe-licensed images", part / "Other"]
    return [
        (first_with(folders, f"fg/{name}"), first_with(folders, f"alpha/{name}")) for name in names
    ]


def composition_1k_test(root: Path, backgrounds: Path) -> list[Composite]:
    """Return the test set to compose, in the order of its lists.

    The backgrounds' list has 20 lines for the first foreground, then 20 for the second.
    """
    part = root / "Test_set"
    layers = part / "Adobe-licensed images"
    names, background_names = (read_names(part / f"test_{kind}_names.txt") for kind in ("fg", "bg"))
    if len(background_names) != BACKGROUNDS_EACH * len(names):
        raise DataError(
            f"{part}/test_bg_names.txt: has {len(background_names)} names; expected "
            f"{BACKGROUNDS_EACH} for each of {len(names)} foregrounds"
        )
    composites = []
    for number, background in enumerate(background_names):
        foreground = Path(names[number // BACKGROUNDS_EACH])
        name = f"{foreground.stem}_{number % BACKGROUNDS_EACH}"
        composites.append(
            Composite(
                name,
                layers / "fg" / foreground,
                layers / "alpha" / foreground,
                backgrounds / background,
                layers / "trimaps" / f"{name}{foreground.suffix}",
            )
        )
    return composites


def composition_1k_foregrounds(root: Path) -> list[tuple[Path, ...]]:
    """Return the test foregrounds that are yet to be composed: colours, alpha and all trimaps."""
    found: dict[Pair, list[Path]] = {}
    if (root / "Test_set").is_dir():
        for composite in composition_1k_test(root, root):
            found.setdefault((composite.colour, composite.alpha), []).append(composite.trimap)
    return [(*layers, *trimaps) for layers, trimaps in found.items()]


def read_names(listing: Path) -> list[str]:
    """Return the names in a list of Composition-1k, one a line."""
    try:
        lines = listing.read_text("utf-8-sig").splitlines()  # as Windows' Notepad marks it
    except UnicodeDecodeError as error:
        raise DataError(f"{listing}: is not UTF-8 ({error.reason}); save it as that") from error
    except OSError as error:
        raise DataError(
            f"{listing}: cannot be read ({error.strerror}); it comes with the data set"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def check_stems(names: list[str], listing: Path) -> None:
    """Raise `DataError` where names do not differ without suffix: they will lie in one folder."""
    above: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in above:
            raise DataError(
                f"{listing}: {name} has the name of {above[stem]} above it; remove or rename one"
            )
        above[stem] = name


def first_with(folders: list[Path], name: str) -> Path:
    """Return the file of the first folder that has it."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{' and '.join(map(str, folders))}: neither has {name}")
