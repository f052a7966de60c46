"""Making a data folder: composing a fixed test set, and linking what a trainer reads as it is.

The rule is that of Composition-1k's authors, as mmediting's preprocess_comp1k_dataset.py has it:
Pillow decodes; a background that is smaller than its foreground is enlarged by Pillow's bicubic
until it covers it, both sides rounded up; its top left corner is used; and
alpha * foreground + (1 - alpha) * background, in float64, loses its fraction. OpenCV's bicubic is
another one, and so would be rounding: other pixels, another SAD.
"""

import hashlib
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from matting.files import whole
from matting.images import ImageError, to_depth, write_image
from matting.trimaps import trimap_from_alpha
from train.layouts import (
    BACKGROUNDS_EACH,
    COMPOSITION_1K,
    MANIFEST,
    Composite,
    DataError,
    check_folder,
    composition_1k_pairs,
    composition_1k_test,
    evenly,
    is_composition_1k,
    paired,
    pictures,
)

RULE = "Pillow bicubic, enlarged only, sides rounded up; top left corner; fraction cut off"
TRIMAP_KERNEL = (1, 30)
"""Diameters of trimaps that are drawn here lie in this range, as mmediting's in training."""
FOREGROUND_NAMES = ("foreground", "fg")


def prepare(
    source: Path,
    output: Path,
    backgrounds: Path | None,
    test_backgrounds: Path | None,
    test_foregrounds: int,
) -> dict:
    """Make a data folder of foregrounds and backgrounds; return the manifest of its test set.

    `source` is Composition-1k as distributed, whose lists say what is composed; or a folder of
    cut-outs; or one with foreground/ (or fg/) and alpha/. Of the latter two, `test_foregrounds`
    are held out, evenly chosen, and so are a tenth of the backgrounds, unless there are
    `test_backgrounds`. No background of the test set is one to learn from, though all may lie in
    one folder. The data folder appears when it is whole.

    Raises
    ------
    DataError
        The output exists, or what is given is no such folder, or too little.
    ImageError
        A picture cannot be read.
    """
    is_new = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_new or not output.name:  # "." would be replaced below the shell's feet
        raise DataError(f"{output}: exists already; choose another name, or remove it")
    for folder in filter(None, (source, backgrounds, test_backgrounds)):
        check_folder(folder)
    if backgrounds is None and test_backgrounds is None:
        raise DataError("nothing to compose with: give --backgrounds, --test-backgrounds or both")
    background_files = some_pictures(backgrounds) if backgrounds else []
    if is_composition_1k(source):
        name = COMPOSITION_1K
        learnt = composition_1k_pairs(source) if backgrounds else []
        composites = composition_1k_test(source, test_backgrounds) if test_backgrounds else []
        test_files = [composite.background for composite in composites]
    else:
        name = source.name
        foregrounds = find_foregrounds(source)
        held_out = evenly(foregrounds, min(test_foregrounds, len(foregrounds) // 2))
        learnt = sorted(set(foregrounds) - set(held_out))
        test_files = (
            some_pictures(test_backgrounds) if test_backgrounds else tenth(background_files)
        )
        composites = plan(held_out, test_files)
    kept = set(map(os.path.realpath, test_files))
    training = [path for path in background_files if os.path.realpath(path) not in kept]
    if background_files and not training:
        raise DataError(f"{backgrounds}: all are in the test set; none are left for training")
    return write(output, learnt, training, composites, name)


def find_foregrounds(folder: Path) -> list[tuple[Path, Path]]:
    """Return pairs of colours and alpha; of a cut-out, twice the same file."""
    colours = next((folder / n for n in FOREGROUND_NAMES if (folder / n).is_dir()), None)
    found = paired(colours, folder / "alpha") if colours else [(p, p) for p in pictures(folder)]
    if len(found) < 2:
        raise DataError(
            f"{folder}: has {len(found)} foregrounds; expected Training_set/ and Test_set/ of "
            "Composition-1k, or two and more: cut-outs (RGBA), or foreground/ and alpha/"
        )
    return found


def some_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder, which must have some."""
    if found := pictures(folder):
        return found
    raise DataError(f"{folder}: no pictures; check the folder's name")


def tenth(backgrounds: list[Path]) -> list[Path]:
    """Return a tenth of the backgrounds, evenly chosen, at least one."""
    return evenly(backgrounds, max(1, len(backgrounds) // 10))


def plan(foregrounds: list[tuple[Path, Path]], backgrounds: list[Path]) -> list[Composite]:
    """Put every foreground on the next 20 backgrounds; after the last comes the first again.

    Where there are fewer, on all of them: no composite is made twice.
    """
    composites = []
    following = itertools.cycle(backgrounds)
    for colour, alpha in foregrounds:
        for number in range(min(BACKGROUNDS_EACH, len(backgrounds))):
            name = f"{colour.stem}_{number}"
            composites.append(Composite(name, colour, alpha, next(following)))
    return composites


def write(
    output: Path,
    foregrounds: list[tuple[Path, Path]],
    backgrounds: list[Path],
    composites: list[Composite],
    source: str,
) -> dict:
    """Link the foregrounds and backgrounds, compose the test set; return its manifest."""
    twice = [name for name, count in Counter(c.name for c in composites).items() if count > 1]
    if twice:
        raise DataError(f"two foregrounds would be composed as {twice[0]}; rename one of them")
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole(output) as data:
        link((colour for colour, alpha in foregrounds if colour == alpha), data / "train/cutouts")
        pairs = [pair for pair in foregrounds if pair[0] != pair[1]]
        link((colour for colour, _ in pairs), data / "train/pairs/foreground")
        link((alpha for _, alpha in pairs), data / "train/pairs/alpha")
        link(backgrounds, data / "train/backgrounds")
        return write_test_set(composites, data / "val", source)


def link(files: Iterable[Path], folder: Path) -> None:
    """Make links to files in a new folder."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(os.path.realpath(file))


def write_test_set(composites: list[Composite], folder: Path, source: str) -> dict:
    """Compose pictures with their trimaps and alphas; return the manifest that lies beside them."""
    for kind in ("image", "trimap", "alpha"):
        (folder / kind).mkdir(parents=True)
    bar = tqdm(total=len(composites), unit="image", disable=None)

    def make(composite: Composite, number: int) -> str:
        image, alpha = compose(composite)
        trimap = trimap_of(composite, alpha, number)
        for kind, pixels in (("image", image), ("trimap", trimap), ("alpha", alpha)):
            write_image(folder / kind / f"{composite.name}.png", pixels)
        bar.update()
        return digest(image, trimap, alpha)

    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(make, composites, itertools.count())
        digests = dict(zip([c.name for c in composites], made, strict=True))
    manifest = {
        "source": source,
        "rule": RULE,
        "pillow": Image.__version__,
        "sha256": digest_of_all(digests),
        "pictures": digests,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def digest_of_all(digests: dict[str, str]) -> str:
    """Return the SHA-256 of the lines `NAME DIGEST`, sorted by name."""
    lines = "".join(f"{name} {value}\n" for name, value in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def digest(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of a picture: its height and width as text, then pixels row by row.

    In a manifest of RGB, trimap and alpha.
    """
    found = hashlib.sha256("{} {}".format(*arrays[0].shape).encode())
    for pixels in arrays:
        found.update(np.ascontiguousarray(pixels))
    return found.hexdigest()


def compose(composite: Composite) -> tuple[np.ndarray, np.ndarray]:
    """Return the image, H×W×3 uint8, and its alpha, H×W uint8."""
    colour, alpha = read_layers(composite)
    if colour.size != alpha.size:
        raise DataError(f"{composite.alpha}: its size is not that of {composite.colour}")
    background = cover(read_picture(composite.background, "RGB"), *colour.size)
    share = np.asarray(alpha)[..., None] / 255.0
    image = np.asarray(colour) * share + np.asarray(background) * (1.0 - share)
    return image.astype(np.uint8), np.asarray(alpha)


def cover(background: Image.Image, width: int, height: int) -> Image.Image:
    """Enlarge a background that is too small, and cut that size from its top left corner."""
    ratio = max(width / background.width, height / background.height)
    if ratio > 1:
        size = math.ceil(background.width * ratio), math.ceil(background.height * ratio)
        background = background.resize(size, Image.Resampling.BICUBIC)
    return background.crop((0, 0, width, height))


def trimap_of(composite: Composite, alpha: np.ndarray, number: int) -> np.ndarray:
    """Read the trimap, or draw one whose widths depend on the picture's number alone."""
    if composite.trimap:
        trimap = np.asarray(read_picture(composite.trimap, "L"))
        if trimap.shape != alpha.shape:
            raise DataError(f"{composite.trimap}: its size is not that of {composite.alpha}")
        return trimap
    inwards, outwards = np.random.default_rng(number).integers(*TRIMAP_KERNEL, 2)
    return trimap_from_alpha(alpha, int(inwards), int(outwards))


def read_layers(composite: Composite) -> tuple[Image.Image, Image.Image]:
    """Return a foreground's colours, RGB, and its alpha, grey."""
    if composite.alpha == composite.colour:
        cutout = read_picture(composite.colour, None)
        if not cutout.has_transparency_data:
            raise ImageError(f"{composite.colour}: has no alpha channel; expected a cut-out, RGBA")
        cutout = cutout.convert("RGBA")
        return cutout.convert("RGB"), cutout.getchannel("A")
    return read_picture(composite.colour, "RGB"), read_picture(composite.alpha, "L")


def read_picture(path: Path, mode: str | None) -> Image.Image:
    """Read a picture with Pillow, and convert it to a mode of Pillow's; a cut-out stays as it is.

    It is turned by its EXIF, and 16 bits of grey become 8, as in `matting.images`. Of 16 bits of
    colour Pillow itself has cut off the lower 8.
    """
    try:
        # A file, not its path: what Pillow maps into memory it turns wrongly.
        with path.open("rb") as file, Image.open(file) as picture:
            picture.load()
            if mode is None:
                return picture
            ImageOps.exif_transpose(picture, in_place=True)
            if picture.mode.startswith("I;16"):  # `convert` would cut off what is above 255
                deep = np.asarray(picture).astype(np.uint16)
                return Image.fromarray(to_depth(deep, np.uint8)).convert(mode)
            return picture.convert(mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read by Pillow ({reason})") from error
