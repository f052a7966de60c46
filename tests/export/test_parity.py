"""The pictures that parity is proven on, and that every one of them is judged."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.errors import ExportError
from export.export import Exported, expected_alphas, prove
from export.parity import Picture, alphas_in_batches, read_pictures, with_mirror_images
from export.runtime import onnx_matte
from matting.images import write_image
from train.checkpoint import load_checkpoint
from train.layouts import DataError


def test_a_picture_without_its_trimap_is_named(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    (tmp_path / "trimap/astronaut_on_cat.png").unlink()
    with pytest.raises(DataError, match=r"trimap: no picture named astronaut_on_cat"):
        list(read_pictures(tmp_path))


@pytest.mark.parametrize("kind", ["trimap", "alpha"])
def test_a_picture_whose_parts_are_not_of_one_size_is_named(
    kind: str, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    write_image(tmp_path / kind / "astronaut_on_cat.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(DataError, match=rf"{kind}/astronaut_on_cat\.png: is 30 x 20 pixels, its"):
        list(read_pictures(tmp_path))


def test_photographs_of_a_data_set_are_read_and_other_files_are_not(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "val")
    for name in (".DS_Store", "Thumbs.db"):  # what desktops leave behind
        (tmp_path / "val/image" / name).touch()
    names = [[picture.name for picture in read_pictures(folder)] for folder in (data, tmp_path)]
    assert names[0] == names[1] and len(names[0]) == 3
    with pytest.raises(DataError, match=r"image: no pictures; expected image/, trimap/ and alpha/"):
        list(read_pictures(data / "image"))


def test_every_picture_of_a_batch_is_judged(
    seeded_weights: Path,
    exported: Exported,
    pictures: list[Picture],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine that answers all of a batch with the first one's alpha is not the network."""
    matte = onnx_matte(exported.artifact, "onnxruntime")
    sizes = []

    def first_for_all(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        sizes.append(len(image))
        return np.repeat(matte(image[:1], trimap[:1]), len(image), axis=0)

    known = with_mirror_images(pictures[:1])
    expected = expected_alphas(load_checkpoint(seeded_weights), known)
    found = alphas_in_batches(first_for_all, known, 3)
    assert sizes == [3]
    apart = [np.abs(e.astype(int) - f).mean() > 1 for e, f in zip(expected, found, strict=True)]
    assert apart == [False, True, True]
    monkeypatch.setattr("export.export.onnx_matte", lambda *_: first_for_all)
    with pytest.raises(ExportError, match=f"^{known[1].name}: "):
        prove(expected, exported.artifact, "onnxruntime", "fp32", known)
