"""Reading a data folder, whole and with things missing."""

import shutil

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from matting.images import ImageError, read_gray, read_image, write_image
from train.dataset import TrainingData, as_tensor
from train.layouts import DataError, photographs_folder


def test_all_pictures_are_read_as_stored(data):
    read = TrainingData.read(data)
    assert [f.colour.shape for f in read.foregrounds] == [(3, 90, 120)] * 2 + [(3, 100, 80)]
    assert [f.alpha.shape for f in read.foregrounds] == [(1, 90, 120)] * 2 + [(1, 100, 80)]
    moon = read.foregrounds[2]
    assert torch.equal(moon.alpha, as_tensor(read_gray(data / "train/pairs/alpha/moon.png")))
    stored = read_image(data / "train/cutouts/ball.png")
    assert torch.equal(read.foregrounds[0].colour, as_tensor(stored))
    assert [b.shape for b in read.backgrounds] == [(3, 150, 140)] * 2
    assert sorted(name for name, *_ in read.photographs) == ["one", "three", "two"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_photographs_judge_a_run(data, count):
    assert len(TrainingData.read(data, photographs=count).photographs) == count
    assert len(TrainingData.read(data, photographs=9).photographs) == 3


def test_photographs_lie_in_the_folder_or_in_its_val(data):
    assert photographs_folder(data) == data / "val"
    assert photographs_folder(data / "val") == data / "val"


@pytest.fixture
def copy(data, tmp_path):
    return shutil.copytree(data, tmp_path / "data")


def test_a_foreground_without_alpha_is_named(copy):
    (copy / "train/pairs/alpha/moon.png").rename(copy / "train/pairs/alpha/sun.png")
    with pytest.raises(DataError, match="foreground: no picture named sun"):
        TrainingData.read(copy)


def test_two_files_of_one_name_are_named(copy):
    shutil.copy(copy / "val/image/one.jpg", copy / "val/image/one.jpeg")
    with pytest.raises(DataError, match=r"image/one\.jpg: one\.jpeg has the same name"):
        TrainingData.read(copy)


def test_hidden_files_are_no_pictures(copy):
    for folder in ("train/cutouts", "train/backgrounds", "val/trimap"):
        (copy / folder / "._one.png").write_bytes(b"macOS's")
    assert len(TrainingData.read(copy).photographs) == 3


def test_sizes_that_differ_are_named(copy):
    write_image(copy / "train/pairs/alpha/moon.png", np.full((5, 5), 128, np.uint8))
    with pytest.raises(DataError, match=r"alpha/moon\.png: its size is not that of .*moon\.jpg"):
        TrainingData.read(copy)


def test_photographs_of_other_sizes_are_named_before_all_is_read(copy):
    (copy / "train/cutouts/disc.png").write_bytes(b"junk")
    write_image(copy / "val/alpha/two.png", np.full((5, 6), 128, np.uint8))
    with pytest.raises(DataError, match=r"alpha/two\.png: is 6 x 5 pixels, its image 50 x 70"):
        TrainingData.read(copy)
    (copy / "val/alpha/two.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"alpha/two\.png: is not an image"):
        TrainingData.read(copy)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_photographs_are_turned_before_their_sizes_are_compared(copy, suffix):
    (copy / "val/image/two.jpg").unlink()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (70, 50)).save(copy / f"val/image/two.{suffix}", exif=exif)
    assert len(TrainingData.read(copy).photographs) == 3
    Image.new("RGB", (50, 70)).save(copy / f"val/image/two.{suffix}", exif=exif)
    with pytest.raises(DataError, match=r"two\.png: is 50 x 70 pixels, its image 70 x 50"):
        TrainingData.read(copy)


def test_a_cutout_without_alpha_is_named(copy):
    write_image(copy / "train/cutouts/plain.png", np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(ImageError, match=r"plain\.png: has no alpha channel"):
        TrainingData.read(copy)


def test_alphas_without_soft_edges_teach_nothing(copy):
    shutil.rmtree(copy / "train/pairs")
    for name in ("disc", "ball"):
        hard = np.dstack([np.zeros((9, 9, 3), np.uint8), np.full((9, 9), 255, np.uint8)])
        write_image(copy / f"train/cutouts/{name}.png", hard)
    with pytest.raises(DataError, match="none of 2 foregrounds has a soft edge"):
        TrainingData.read(copy)


def test_no_backgrounds(copy):
    shutil.rmtree(copy / "train/backgrounds")
    with pytest.raises(
        DataError, match=r"no pictures in train/backgrounds/; python -m train\.data"
    ):
        TrainingData.read(copy)
