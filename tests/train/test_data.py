"""Checking data sets of every layout, and composing test sets of them."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from matting.images import ImageError, read_cutout, read_gray, read_image, write_image
from matting.trimaps import trimap_from_alpha
from train.compose import plan, read_layers, read_picture, trimap_of
from train.data import main
from train.dataset import Photographs, TrainingData
from train.layouts import Composite, find_files

BACKGROUNDS = {
    f"{name}{number}": size
    for number in range(7)
    for name, size in {"large": (60, 50), "low": (31, 64), "tiny": (7, 9)}.items()
}
"""Height and width, in the order of the list; the foregrounds are 40 x 30 pixels."""


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """Composition-1k in small: 2 foregrounds to learn from, 2 for the test, 21 backgrounds each."""
    root = tmp_path_factory.mktemp("comp1k")
    random = np.random.default_rng(0)
    layers = root / "Combined_Dataset"

    def foreground(folder, name):
        for kind, shape in (("fg", (40, 30, 3)), ("alpha", (40, 30))):
            write(layers / folder / kind / name, random.integers(0, 256, shape, np.uint8))

    foreground("Training_set/Adobe-licensed images", "bear.jpg")
    foreground("Training_set/Other", "web.png")
    (layers / "Training_set/training_fg_names.txt").write_text("web.png\nbear.jpg\n")
    for name in ("lace", "wool"):
        foreground("Test_set/Adobe-licensed images", f"{name}.png")
        alpha = read_gray(layers / f"Test_set/Adobe-licensed images/alpha/{name}.png")
        for number in range(20):
            trimap = trimap_from_alpha(alpha, number + 1, number + 1)
            write(layers / f"Test_set/Adobe-licensed images/trimaps/{name}_{number}.png", trimap)
    (layers / "Test_set/test_fg_names.txt").write_text("wool.png\nlace.png\n")
    for name, size in BACKGROUNDS.items():
        for folder in ("voc", "coco"):
            write(root / folder / f"{name}.png", random.integers(0, 256, (*size, 3), np.uint8))
    background_names = [f"{list(BACKGROUNDS)[number % 21]}.png" for number in range(40)]
    (layers / "Test_set/test_bg_names.txt").write_text("\n".join(background_names))
    return layers


@pytest.fixture
def copy(distributed, tmp_path):
    return shutil.copytree(distributed, tmp_path / "Combined_Dataset")


def prepare(source, output, *more):
    coco, voc = (str(source.parent / name) for name in ("coco", "voc"))
    options = ["--backgrounds", coco, "--test-backgrounds", voc]
    return main(["prepare", str(source), "-o", str(output), *(more or options)])


@pytest.fixture(scope="module")
def composed(distributed, tmp_path_factory):
    output = tmp_path_factory.mktemp("composed") / "data"
    assert prepare(distributed, output) == 0
    return output


def reference(layers, foreground, background):
    """Compose as mmediting's script does, step by step."""
    fg = Image.open(layers / "fg" / foreground).convert("RGB")
    alpha = np.array(Image.open(layers / "alpha" / foreground).convert("RGB")) / 255.0
    bg = Image.open(background).convert("RGB")
    ratio = max(fg.size[0] / bg.size[0], fg.size[1] / bg.size[1])
    if ratio > 1:
        size = [math.ceil(side * ratio) for side in bg.size]
        bg = bg.resize(size, Image.BICUBIC)
    bg = bg.crop((0, 0, *fg.size))
    return (fg * alpha + bg * (1.0 - alpha)).astype(np.uint8)


def test_composites_are_those_of_mmeditings_script(distributed, composed):
    """The first foreground of the list gets the first 20 backgrounds of the other list."""
    layers = distributed / "Test_set/Adobe-licensed images"
    for name, first in (("wool", 0), ("lace", 20)):
        for number in range(20):
            background = f"{list(BACKGROUNDS)[(first + number) % 21]}.png"
            expected = reference(layers, f"{name}.png", distributed.parent / "voc" / background)
            stem = f"{name}_{number}.png"
            assert np.array_equal(read_image(composed / "val/image" / stem), expected)
            for kind, source in (("alpha", f"alpha/{name}.png"), ("trimap", f"trimaps/{stem}")):
                assert np.array_equal(
                    read_gray(composed / "val" / kind / stem), read_gray(layers / source)
                )
    assert len(find_files(composed).photographs) == 40


def test_fractions_are_cut_off(copy, tmp_path):
    """200 * 128 / 255 + 101 * 127 / 255 = 150.69."""
    layers = copy / "Test_set/Adobe-licensed images"
    write_image(layers / "fg/wool.png", np.full((40, 30, 3), 200, np.uint8))
    write_image(layers / "alpha/wool.png", np.full((40, 30), 128, np.uint8))
    write(tmp_path / "voc/flat.png", np.full((60, 60, 3), 101, np.uint8))
    (copy / "Test_set/test_bg_names.txt").write_text("flat.png\n" * 40)
    assert prepare(copy, tmp_path / "data", "--test-backgrounds", str(tmp_path / "voc")) == 0
    assert (read_image(tmp_path / "data/val/image/wool_0.png") == 150).all()
    assert not any((tmp_path / "data/train").rglob("*.*"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_pictures_are_read_as_the_trainer_reads_them(suffix, orientation, tmp_path):
    """Turned by EXIF, but for cut-outs, and of 16 bits, or 8."""
    random, path = np.random.default_rng(3), tmp_path / f"picture.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation

    def save(pixels):
        lossless = {"lossless": True, "exact": True} if suffix == "webp" else {}
        Image.fromarray(pixels).save(path, exif=exif, **lossless)

    save(random.integers(0, 256, (9, 16, 3), np.uint8))
    assert np.array_equal(read_picture(path, "RGB"), read_image(path))
    if suffix in ("png", "tif"):
        save(np.arange(65536, dtype=np.uint16).reshape(128, 512))
        assert np.array_equal(read_picture(path, "L"), read_gray(path))
        assert np.array_equal(read_picture(path, "RGB"), read_image(path))
    if suffix != "jpg":
        save(random.integers(0, 256, (9, 16, 4), np.uint8))
        layers = read_layers(Composite("cut-out", path, path, path))
        assert all(map(np.array_equal, layers, read_cutout(path)))


def test_the_same_set_comes_out_each_time_and_its_digest_says_so(
    distributed, composed, tmp_path, capsys
):
    again = tmp_path / "again"
    assert prepare(distributed, again) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    manifest = json.loads((again / "val/manifest.json").read_text())
    assert manifest == json.loads((composed / "val/manifest.json").read_text())
    assert manifest["source"] == "Composition-1k"
    assert line == f"SHA-256 of the test set: {manifest['sha256']}"
    assert main(["check", str(again)]) == 0
    assert line in capsys.readouterr().out
    pixels = read_image(again / "val/image/wool_3.png")
    pixels[0, 0, 0] ^= 1
    write_image(again / "val/image/wool_3.png", pixels)
    assert main(["check", str(again)]) == 1
    output = capsys.readouterr().out
    assert "wrong: 1\n" in output
    assert "wool_3 is not as it was composed" in output
    for damaged in ('{"name": "my-app"}', '{"source": "Composition-1k", "pictures"', "[]"):
        (again / "val/manifest.json").write_text(damaged)
        assert main(["check", str(again)]) == 2
        error = capsys.readouterr().err
        assert "again/val/manifest.json: is not a manifest of python -m train.data prepare" in error
        assert error.count("\n") == 1


def test_digests_are_of_sizes_and_pixels(composed):
    """So that those of other people, and of older versions, are the same for the same pixels."""
    manifest = json.loads((composed / "val/manifest.json").read_text())
    lines = ""
    for name, found in sorted(manifest["pictures"].items()):
        pixels = [
            read(composed / f"val/{kind}/{name}.png").tobytes()
            for kind, read in (("image", read_image), ("trimap", read_gray), ("alpha", read_gray))
        ]
        content = b"".join([b"40 30", *pixels])
        assert found == hashlib.sha256(content).hexdigest()
        lines += f"{name} {found}\n"
    assert manifest["sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_what_was_prepared_is_trained_on(distributed, composed):
    data = TrainingData.read(composed)
    assert [foreground.colour.shape for foreground in data.foregrounds] == [(3, 40, 30)] * 2
    other = distributed / "Training_set/Other/alpha/web.png"
    assert np.array_equal(data.foregrounds[1].alpha[0].numpy(), read_gray(other))
    assert len(data.backgrounds) == 21
    assert len(TrainingData.read(composed, backgrounds=2).backgrounds) == 2
    assert {name for name, *_ in data.photographs} >= {"wool_0", "lace_19"}


def test_lists_may_have_windows_line_ends_and_its_mark_of_utf_8(distributed, copy, tmp_path):
    for listing in copy.rglob("*_names.txt"):
        lines = listing.read_text().splitlines()
        listing.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    for name in ("voc", "coco"):
        (tmp_path / name).symlink_to(distributed.parent / name)
    assert prepare(copy, tmp_path / "data") == 0
    assert len(find_files(tmp_path / "data").photographs) == 40


def test_the_tests_backgrounds_are_not_learnt_from(distributed, tmp_path):
    photos = shutil.copytree(distributed.parent / "voc", tmp_path / "photos")
    write_image(photos / "more.png", np.zeros((50, 60, 3), np.uint8))
    options = ["--backgrounds", str(photos), "--test-backgrounds", f"{photos}/../photos"]
    assert prepare(distributed, tmp_path / "data", *options) == 0
    files = find_files(tmp_path / "data")
    assert [path.name for path in files.backgrounds] == ["more.png"]
    assert len(files.photographs) == 40


def test_composition_1k_as_distributed_is_checked(copy, capsys):
    assert main(["check", str(copy)]) == 0
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["foregrounds", "2"],
        ["test foregrounds", "2"],
    ]
    layers = copy / "Test_set/Adobe-licensed images"
    (layers / "trimaps/wool_7.png").unlink()
    shutil.copy(layers / "alpha/lace.png", copy / "Training_set/Other/alpha/web.png")
    assert main(["check", str(copy)]) == 1
    output = capsys.readouterr().out
    assert "wool_7.png: no such file" in output
    assert "lace.png: the same alpha as" in output
    assert "wrong: 2\n" in output


def test_mmeditings_lists_are_read(copy, tmp_path):
    """As its script leaves them: composites and cropped backgrounds beside the originals."""
    random = np.random.default_rng(1)
    entries = {"training": [], "test": []}
    for part, folder, name in (
        ("training", "Training_set/Other", "web"),
        ("test", "Test_set/Adobe-licensed images", "wool"),
    ):
        for number in range(3):
            entry = {
                "alpha_path": f"{folder}/alpha/{name}.png",
                "fg_path": f"{folder}/fg/{name}.png",
                "bg_path": f"{folder.split('/')[0]}/bg/{name}_{number}.png",
                "merged_path": f"{folder.split('/')[0]}/merged/{name}_{number}.png",
            }
            if part == "test":
                entry["trimap_path"] = f"{folder}/trimaps/{name}_{number}.png"
            for kind in ("bg_path", "merged_path"):
                write(copy / entry[kind], random.integers(0, 256, (40, 30, 3), np.uint8))
            entries[part].append(entry)
        (copy / f"{part}_list.json").write_text(json.dumps(entries[part]))
    data = TrainingData.read(copy)
    assert (len(data.foregrounds), len(data.backgrounds), len(data.photographs)) == (1, 3, 3)
    assert [name for name, *_ in Photographs.find(copy)] == ["wool_0", "wool_1", "wool_2"]
    assert main(["check", str(copy)]) == 0


@pytest.mark.parametrize("paired", [False, True])
def test_a_tenth_of_your_own_is_held_out(paired, tmp_path):
    random = np.random.default_rng(2)
    for number in range(6):
        colour = random.integers(0, 256, (20, 24, 3), np.uint8)
        alpha = random.integers(0, 256, (20, 24), np.uint8)
        if paired:
            write(tmp_path / f"own/fg/{number}.jpg", colour)
            write(tmp_path / f"own/alpha/{number}.png", alpha)
        else:
            write(tmp_path / f"own/{number}.png", np.dstack([colour, alpha]))
        for half in "ab":
            pixels = random.integers(0, 256, (30, 20, 3), np.uint8)
            write(tmp_path / f"photos/{number}{half}.png", pixels)
    photos = str(tmp_path / "photos")
    command = ["--backgrounds", photos, "--test-foregrounds", "2"]
    assert prepare(tmp_path / "own", tmp_path / "data", *command) == 0
    files = find_files(tmp_path / "data")
    learnt = [path.stem for path in files.cutouts + [alpha for _, alpha in files.pairs]]
    assert learnt == ["1", "2", "4", "5"]
    assert [image.stem for image, *_ in files.photographs] == ["0_0", "3_0"]
    assert [path.stem for path in files.backgrounds][:2] == ["0b", "1a"]
    assert main(["check", str(tmp_path / "data")]) == 0
    image, trimap, alpha = (read_image(path) for path in files.photographs[0])
    known = (trimap == 0) | (trimap == 255)
    assert np.array_equal(trimap[known], alpha[known])
    assert image.shape == (20, 24, 3)


@pytest.mark.parametrize("count", [3, 30])
def test_each_foreground_is_laid_on_the_next_twenty_backgrounds_or_on_all(count):
    backgrounds = [Path(str(number)) for number in range(count)]
    made = plan([(Path(name), Path(name)) for name in "ab"], backgrounds)
    each = min(20, count)
    assert [c.name for c in made] == [f"{name}_{i}" for name in "ab" for i in range(each)]
    assert [c.background for c in made] == (2 * backgrounds)[: 2 * each]


@pytest.mark.parametrize("number", [0, 1, 19])
def test_drawn_trimaps_follow_from_the_pictures_number(number, tmp_path):
    """Or the same test set would have another digest elsewhere."""
    alpha = np.tile(np.clip((np.arange(90) - 40) * 32, 0, 255).astype(np.uint8), (9, 1))
    drawn = trimap_of(Composite("edge", *[tmp_path] * 3), alpha, number)
    inwards, outwards = map(int, np.random.default_rng(number).integers(1, 30, 2))
    assert inwards != outwards
    assert np.array_equal(drawn, trimap_from_alpha(alpha, inwards, outwards))


def test_a_link_to_itself_is_named_by_check(data, tmp_path, capsys):
    photos = shutil.copytree(data / "train/backgrounds", tmp_path / "photos")
    (photos / "zoo.png").symlink_to("zoo.png")
    made = tmp_path / "data"
    assert prepare(data / "train/cutouts", made, "--backgrounds", str(photos)) == 0
    assert main(["check", str(made)]) == 1
    assert "backgrounds/zoo.png: cannot be read" in capsys.readouterr().out


def test_what_is_wrong_is_named(data, tmp_path, capsys):
    """Every fault at once; the data set is the one that the trainer's tests use."""
    bad = shutil.copytree(data, tmp_path / "bad")
    assert main(["check", str(bad)]) == 0
    shutil.copy(bad / "train/backgrounds/wall.png", bad / "val/image/two.jpg.png")
    (bad / "val/image/two.jpg").unlink()
    (bad / "val/image/two.jpg.png").rename(bad / "val/image/two.png")
    sky = bad / "train/backgrounds/sky.png"
    sky.write_bytes(sky.read_bytes()[:-99])
    write_image(bad / "train/cutouts/disc.png", np.zeros((5, 5, 3), np.uint8))
    write_image(bad / "train/cutouts/hard.png", np.full((5, 5, 4), 255, np.uint8))
    write_image(bad / "train/pairs/foreground/moon.jpg", np.zeros((5, 5, 3), np.uint8))
    write_image(bad / "val/trimap/one.png", read_gray(bad / "val/alpha/one.png"))
    shutil.copy(bad / "val/alpha/three.png", bad / "train/pairs/alpha/moon.png")
    capsys.readouterr()
    assert main(["check", str(bad)]) == 1
    output = capsys.readouterr().out
    for complaint in (
        "sky.png: this PNG is damaged or cut short",
        "disc.png: has no alpha channel",
        "moon.png: is 100 x 40 pixels, moon.jpg is 5 x 5 pixels",
        "two.png: is 50 x 70 pixels, its image is 140 x 150 pixels",
        "one.png: looks like an alpha matte",
        "two.png: the same picture as",
        "three.png: the same alpha as",
        "hard.png: no soft edge",
    ):
        assert complaint in output
    assert "notes: 1\n" in output


def test_an_alpha_in_colour_is_noted(data, tmp_path, capsys):
    """As where foregrounds and alphas lie in each other's folders."""
    noted = shutil.copytree(data, tmp_path / "noted")
    pairs = noted / "train/pairs"
    for folder, name in (("alpha", "other"), ("foreground", "alpha"), ("other", "foreground")):
        (pairs / folder).rename(pairs / name)
    shutil.copy(noted / "train/backgrounds/wall.png", noted / "val/image/one.png")
    shutil.copy(noted / "train/backgrounds/wall.png", noted / "val/alpha/one.png")
    (noted / "val/image/one.jpg").unlink()
    write_image(noted / "val/trimap/one.png", np.full((150, 140), 128, np.uint8))
    main(["check", str(noted)])
    output = capsys.readouterr().out
    for alpha in ("train/pairs/alpha/moon.jpg", "val/alpha/one.png"):
        assert f"{alpha}: is in colour; its luma is taken for alpha" in output
    assert "notes: 2\n" in output


@pytest.mark.parametrize(("known", "alpha"), [(0, 1), (255, 254)])
def test_a_trimap_that_is_wrong_is_noted(known, alpha, data, tmp_path, capsys):
    """It may be meant; a network is then judged by what it could not change."""
    noted = shutil.copytree(data, tmp_path / "noted")
    trimap, truth = (read_gray(noted / f"val/{kind}/two.png") for kind in ("trimap", "alpha"))
    truth[trimap == known] = alpha
    write_image(noted / "val/alpha/two.png", truth)
    assert main(["check", str(noted)]) == 0
    share = f"{(trimap == known).mean():.2%}"
    assert f"two.png: {share} of the pixels are known, but alpha" in capsys.readouterr().out


def test_a_trimap_in_colour_is_none(data, tmp_path, capsys):
    """Its luma would be something, but not what is meant."""
    bad = shutil.copytree(data, tmp_path / "bad")
    trimap = read_gray(bad / "val/trimap/two.png")
    write_image(bad / "val/trimap/two.png", np.dstack([trimap, trimap, trimap * 0]))
    assert main(["check", str(bad)]) == 1
    assert "two.png: is in colour" in capsys.readouterr().out
    for read in (Photographs.check, list):  # as a run begins, and at its first validation
        with pytest.raises(ImageError, match=r"two\.png: is in colour"):
            read(Photographs.find(bad))


def test_mistakes_are_one_line_and_nothing_is_written(copy, distributed, tmp_path, capsys):
    voc, output = str(distributed.parent / "voc"), tmp_path / "data"
    cut = tmp_path / "cut"
    shutil.copytree(voc, cut)
    (cut / "low0.png").write_bytes((cut / "low0.png").read_bytes()[:200])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for folder in ("foreground", "alpha"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    short = shutil.copytree(copy, tmp_path / "short")
    (short / "Test_set/test_bg_names.txt").write_text("low0.png\n" * 39)
    for name, names in (
        ("twice", b"web.png\nbear.jpg\nweb.png\n"),
        ("both", b"bear.jpg\nbear.png\n"),
        ("latin", b"b\xe4r.jpg\n"),
    ):
        shutil.copytree(copy, tmp_path / name)
        (tmp_path / name / "Training_set/training_fg_names.txt").write_bytes(names)
    (tmp_path / "same").mkdir()
    for name in ("0.png", "0.tif", "0.webp", "1.png"):  # the first and third are held out
        (tmp_path / "same" / name).touch()
    (copy / "Training_set/Other/alpha/web.png").unlink()
    for command, complaint in (
        (["prepare", str(copy), "--backgrounds", voc], "neither has alpha/web.png"),
        *(
            (["prepare", str(tmp_path / name), "--backgrounds", voc], f"_fg_names.txt: {complaint}")
            for name, complaint in (
                ("twice", "web.png has the name of web.png above it"),
                ("both", "bear.png has the name of bear.jpg above it"),
                ("latin", "is not UTF-8"),
            )
        ),
        (["prepare", str(short), "--test-backgrounds", voc], "has 39 names; expected 20 for each"),
        (["prepare", str(distributed)], "give --backgrounds"),
        (["prepare", str(distributed), "--test-backgrounds", str(cut)], "low0.png: cannot be read"),
        (
            ["prepare", str(distributed), "--test-backgrounds", str(tmp_path / "full")],
            "large0.png: cannot be read by Pillow (No such file or directory)\n",
        ),
        (["prepare", voc, "--backgrounds", voc], "has no alpha channel; expected a cut-out"),
        (["prepare", str(cut / "none"), "--backgrounds", voc], "none: no such folder"),
        (["prepare", voc, "--backgrounds", voc, "--test-backgrounds", f"{voc}/../voc"], "all are"),
        (["prepare", str(tmp_path / "full"), "--backgrounds", voc], "has 0 foregrounds; expected"),
        (["prepare", str(tmp_path / "empty"), "--backgrounds", voc], "has 0 foregrounds; expected"),
        (["prepare", voc, "--backgrounds", str(tmp_path / "full")], "full: no pictures; check"),
        (
            ["prepare", str(tmp_path / "same"), "--backgrounds", voc],
            "two foregrounds would be composed as 0_0",
        ),
    ):
        assert main([*command, "-o", str(output)]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.splitlines()[-1].startswith("train.data: ")
        assert not output.exists()
        assert not list(tmp_path.glob(".*"))
    full = ["prepare", str(distributed), "--backgrounds", voc, "-o", str(tmp_path / "full")]
    for command, complaint in (
        (full, "full: exists already"),
        ([*full[:-1], "."], ".: exists already"),
        (["check", str(tmp_path / "none")], "none: no such folder"),
        (["check", str(tmp_path / "full")], "full: no pictures in"),
    ):
        assert main(command) == 2
        assert complaint in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*full, "--test-foregrounds", "-3"])
    assert "-3 is not a number from 1" in capsys.readouterr().err
    (copy / "test_list.json").write_text('[{"alpha_path": "a.png"}]')
    assert main(["check", str(copy)]) == 2
    assert "test_list.json: is not a list of mmediting's" in capsys.readouterr().err
