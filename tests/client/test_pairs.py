"""The command line with many photos: which a folder, a glob or a list names."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from client.pairs import find_pairs
from matting.images import write_image

FOLDERS = ("photos", "--trimaps", "trimaps", "-o", "mattes")


def test_folder_with_subfolders(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "a/cat.bmp", "a/b.c/dog.v2.tif"])
    code, out, err = run(*FOLDERS)
    assert (code, out, err) == (0, "3 written, 0 already there, 0 failed\n", "")
    check_mattes(Path("mattes"), expected)


def test_umlauts_of_one_and_of_two_characters(run, make_pairs, check_mattes):
    """On a Mac's disk they may be two: a vowel, and what is above it."""
    composed, decomposed = "B\u00e4r.png", "Ba\u0308r.png"
    expected = make_pairs([decomposed])
    Path("trimaps", decomposed).rename(Path("trimaps", composed))
    code, out, err = run(*FOLDERS)
    assert (code, out, err) == (0, "1 written, 0 already there, 0 failed\n", "")
    check_mattes(Path("mattes"), expected)


def test_links_to_folders_are_followed(run, make_pairs, tmp_path, check_mattes):
    """But not in circles, and not into outputs."""
    expected = make_pairs(["cat.png", "a/dog.png"])
    Path("photos/a").rename("elsewhere")
    Path("mattes").mkdir()
    for name, target in (("a", "elsewhere"), ("made", "mattes"), ("a/up", "photos")):
        Path("photos", name).symlink_to(tmp_path / target)
    for done in (0, 2):
        code, out, err = run(*FOLDERS)
        assert (code, out, err) == (0, f"{2 - done} written, {done} already there, 0 failed\n", "")
    check_mattes(Path("mattes"), expected)


def test_a_link_that_leads_nowhere_is_a_photo_that_fails(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "gone.png", "loop.png"])
    for name in ("gone.png", "loop.png"):
        Path("photos", name).unlink()
        Path("photos", name).symlink_to("nosuch.png" if name == "gone.png" else name)
    code, out, err = run(*FOLDERS)
    assert (code, out) == (1, "1 written, 0 already there, 2 failed\n")
    assert "failed: photos/gone.png: no such file" in err
    assert "failed: photos/loop.png: cannot be read (Too many levels" in err
    check_mattes(Path("mattes"), {"cat.png": expected["cat.png"]})


def test_a_folder_that_may_not_be_read_is_a_failure(run, make_pairs, close_folder, check_mattes):
    expected = make_pairs(["cat.png", "closed/dog.png"])
    close_folder("photos/closed")
    code, out, err = run(*FOLDERS, "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 already there, 1 failed\n")
    reason = "this folder cannot be listed (Permission denied)"
    assert err == f"failed: photos/closed: {reason}\n"
    check_mattes(Path("mattes"), {"cat.png": expected["cat.png"]})


@pytest.mark.parametrize("closed", ["trimaps", "trimaps/a"])
def test_a_trimap_folder_that_may_not_be_read_is_told(run, make_pairs, close_folder, closed):
    make_pairs(["cat.png", "a/b/dog.png"])
    close_folder(closed)
    code, out, err = run(*FOLDERS)
    if closed == "trimaps":
        assert (code, out) == (2, "")
        assert err == "error: trimaps: cannot be listed (Permission denied)\n"
    else:
        assert (code, out) == (1, "1 written, 0 already there, 1 failed\n")
        reason = "trimaps/a cannot be listed (Permission denied)"
        assert err == f"failed: photos/a/b/dog.png: {reason}\n"


def test_photos_of_unknown_formats_fail_if_they_have_trimaps(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "a/dog.v2.png", "owl.png"])
    Path("photos/a/dog.v2.png").rename("photos/a/dog.v2.heic")
    Path("photos/owl.png").rename("photos/owl.CR2")
    Path("photos/owl.xmp").touch()
    Path("photos/cat.xmp").touch()
    Path("photos/notes.txt").touch()
    code, out, err = run(*FOLDERS, "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 already there, 2 failed\n")
    reason = "has a trimap, but its format is not supported"
    dog, owl = err.splitlines()
    assert dog.startswith(f"failed: photos/a/dog.v2.heic: {reason}; save it as one of .png, .jpg")
    assert owl.startswith(f"failed: photos/owl.CR2: {reason} (nor is that of owl.xmp); save it as")
    assert "photos/owl.CR2,trimaps/owl.png,owl.png," in Path("failures.csv").read_text()
    check_mattes(Path("mattes"), {"cat.png": expected["cat.png"]})


def test_trimaps_without_a_photo_are_told(run, make_pairs, start, standin):
    make_pairs([f"{i}.png" for i in range(6)])
    for i in range(1, 6):
        Path(f"photos/{i}.png").unlink()
    program = start(*FOLDERS, "--url", standin.grpc_url, stderr=subprocess.PIPE)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (0, "1 written, 0 already there, 0 failed\n")
    names = "trimaps/1.png, trimaps/2.png, trimaps/3.png, ..."
    assert err == f"trimaps without a photo: 5 ({names})\n"
    program = start(*FOLDERS, "--url", standin.grpc_url, "--quiet", stderr=subprocess.PIPE)
    assert program.communicate(timeout=60) == ("", "")
    program = start("photos/0*", *FOLDERS[1:], "--url", standin.grpc_url, stderr=subprocess.PIPE)
    assert program.communicate(timeout=60)[1] == ""  # a glob is meant to leave some out


def test_no_input_is_overwritten_or_taken_for_an_output(run, make_pairs, picture, tmp_path):
    make_pairs(["cat.png", "dog.png"])
    Path("new").mkdir()
    Path("links").mkdir()
    write_image("new/dog.png", picture[0])
    Path("links/dog.png").symlink_to(tmp_path / "photos/cat.png")
    Path("linked").symlink_to(tmp_path / "new")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    background = ["--background", "new/dog.png"]
    for outputs, taken in (
        (["--composite", "new", *background], "new/dog.png"),
        (["--composite", "linked", *background], "linked/dog.png"),
        (["-o", "links"], "links/dog.png"),
        (["-o", "mattes", "--failures", "trimaps/cat.png"], "trimaps/cat.png"),
        (["-o", "mattes", "--failures", "links/dog.png"], "links/dog.png"),
    ):
        code, out, err = run("photos", "--trimaps", "trimaps", *outputs)
        assert (code, out) == (2, "")
        assert err == f"error: {taken}: is used already by this command; choose another name\n"
    Path("photos/owl.png").symlink_to(tmp_path / "mattes/cat.png")  # an input that is a link
    assert run(*FOLDERS)[2].startswith("error: mattes/cat.png: is used already by this command")
    assert {path: path.read_bytes() for path in before} == before


def test_rows_without_a_photo_are_failures(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png"])
    rows = ["photos/cat.png,trimaps/cat.png", ".,t.png", "/,t.png", "..,t.png"]
    Path("pairs.csv").write_text("image,trimap\n" + "\n".join(rows))
    code, out, err = run("pairs.csv", "-o", "mattes", "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 already there, 3 failed\n")
    lines = [f"failed: {name}: is a folder; expected a photo" for name in (".", "/", "..")]
    assert err.splitlines() == lines
    check_mattes(Path("mattes/photos"), {"cat.png": expected["cat.png"]})
    assert run("failures.csv", "-o", "mattes")[0] == 1


def test_other_files_are_no_photos(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png"])
    Path("photos/notes.txt").write_text("notes")
    for hidden in ("._cat.png", ".thumbnails/cat.png", "a/.7yx/cat.png"):
        Path("photos", hidden).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", hidden).write_bytes(b"another program's")
    Path("trimaps/.7yx").mkdir()
    Path("trimaps/.7yx/cat.png").touch()
    assert run(*FOLDERS)[0] == 0
    check_mattes(Path("mattes"), expected)


def test_trimaps_and_outputs_below_the_photos_are_no_photos(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png"])
    Path("trimaps").rename("photos/trimaps")
    for _ in range(2):
        arguments = ("photos", "--trimaps", "photos/trimaps", "-o", "photos/mattes")
        assert run(*arguments)[0] == 0
    check_mattes(Path("photos/mattes"), expected)


def test_folders_of_outputs_are_not_searched_for_photos(run, make_pairs, close_folder):
    make_pairs(["cat.png"])
    Path("photos/mattes/closed").mkdir(parents=True)
    close_folder("photos/mattes/closed")
    code, out, err = run(*FOLDERS[:3], "-o", "photos/mattes")
    assert (code, out, err) == (0, "1 written, 0 already there, 0 failed\n", "")


def test_files_are_known_from_the_listing_of_their_folder(tmp_path):
    """On a network's drive it takes long to look at a million of them one by one."""
    for folder in ("photos/a", "trimaps/a"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(100):
            (tmp_path / folder / f"{number}.png").touch()
    looks = Counter()
    sys.setprofile(lambda _, event, called: looks.update([event == "c_call" and called.__name__]))
    outputs = {"alpha": tmp_path / "mattes"}
    pairs, problems = find_pairs(str(tmp_path / "photos"), tmp_path / "trimaps", outputs)
    sys.setprofile(None)
    assert (len(pairs), problems) == (100, [])
    assert 0 < looks["stat"] + looks["lstat"] < 100


def test_glob(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "a/cat.bmp", "a/dog.bmp"])
    del expected["cat.png"]
    assert run("photos/**/*.bmp", *FOLDERS[1:])[0] == 0
    check_mattes(Path("mattes"), expected)


def test_list(run, make_pairs, tmp_path, check_mattes):
    expected = make_pairs(["cat.png", "a/dog.png", "bird.png"])
    lines = [
        ["photos/cat.png", "trimaps/cat.png"],
        ["photos/a/dog.png", "trimaps/a/dog.png"],
        [tmp_path / "photos/bird.png", "trimaps/bird.png"],
    ]
    with Path("pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "trimap"], *lines])
    assert run("pairs.csv", "-o", "mattes")[0] == 0
    photos = {f"photos/{name}": expected[name] for name in ("cat.png", "a/dog.png")}
    check_mattes(Path("mattes"), {**photos, "bird.png": expected["bird.png"]})


def test_names_that_are_no_valid_text(start, standin, make_pairs, tmp_path, check_mattes):
    name = b"caf\xe9.png".decode(errors="surrogateescape")  # Latin-1 on a UTF-8 system
    expected = make_pairs([name, "bad.png"])
    (tmp_path / "photos/bad.png").rename(tmp_path / f"photos/bad-{name}")
    arguments = (*FOLDERS, "--url", standin.grpc_url, "--json", "--failures", "failures.csv")
    program = start(*arguments, stderr=subprocess.PIPE)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 1
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["failed", "written"]
    assert "no trimap trimaps/bad-caf\\udce9.*" in err
    assert b"photos/bad-caf\xe9.png" in (tmp_path / "failures.csv").read_bytes()
    check_mattes(tmp_path / "mattes", {name: expected[name]})


def test_list_with_places(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "dog.png"])
    Path("pairs.csv").write_text(
        "output,image,trimap\nb/c.png,photos/cat.png,trimaps/cat.png\n"
        ",photos/dog.png,trimaps/dog.png\n"
    )
    assert run("pairs.csv", "-o", "mattes")[0] == 0
    found = {"b/c.png": expected["cat.png"], "photos/dog.png": expected["dog.png"]}
    check_mattes(Path("mattes"), found)


def test_places_with_suffixes(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "dog.png", "owl.png"])
    places = {"cat": "x/cat.tif", "dog": "x/dog.gif", "owl": "x/owl"}
    rows = [f"{place},photos/{n}.png,trimaps/{n}.png\n" for n, place in places.items()]
    Path("pairs.csv").write_text("output,image,trimap\n" + "".join(rows))
    assert run("pairs.csv", "-o", "mattes")[0] == 0
    found = {"x/cat.tif": "cat.png", "x/dog.png": "dog.png", "x/owl.png": "owl.png"}
    check_mattes(Path("mattes"), {place: expected[name] for place, name in found.items()})


def test_places_outside_are_failures(run, make_pairs, tmp_path, check_mattes):
    expected = make_pairs(["cat.png", "dog.png", "owl.png", "ant.png"])
    places = {"cat": f"{tmp_path}/cat.png", "dog": "../dog.png", "owl": "cat.png", "ant": "."}
    rows = [f"{place},photos/{n}.png,trimaps/{n}.png\n" for n, place in places.items()]
    Path("pairs.csv").write_text("output,image,trimap\n" + "".join(rows))
    code, out, err = run("pairs.csv", "-o", "mattes", "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 already there, 3 failed\n")
    lines = [
        f"failed: photos/{name}.png: the output {places[name]} is not inside the output folders"
        for name in ("cat", "dog", "ant")
    ]
    assert err.splitlines() == lines
    check_mattes(Path("mattes"), {"cat.png": expected["owl.png"]})
    assert run("failures.csv", "-o", "mattes")[2].splitlines() == lines


def test_a_place_that_cannot_be_is_one_failure(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "dog.png"])
    Path("pairs.csv").write_text(
        f"output,image,trimap\n{'c' * 300}.png,photos/cat.png,trimaps/cat.png\n"
        "dog.png,photos/dog.png,trimaps/dog.png\n"
    )
    code, out, err = run("pairs.csv", "-o", "mattes")
    assert (code, out) == (1, "1 written, 0 already there, 1 failed\n")
    assert err == f"failed: mattes/{'c' * 300}.png: File name too long\n"
    check_mattes(Path("mattes"), {"dog.png": expected["dog.png"]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos", "-o", "mattes"], "give the folder of their trimaps with --trimaps"),
        (["photos", "--trimaps", "nosuch", "-o", "mattes"], "--trimaps nosuch is not a folder"),
        (["nosuch/*.png", "--trimaps", "trimaps", "-o", "mattes"], "no photos in nosuch/*.png"),
        (["empty", "--trimaps", "trimaps", "-o", "mattes"], "no photos in empty"),
        (["photos", "--trimaps", "photos", "-o", "mattes"], "need separate folders"),
        (["photos", "--trimaps", "trimaps", "-o", "photos"], "--alpha photos is used already"),
        (["photos", "--trimaps", "trimaps", "-o", "x", "--cutout", "x"], "--cutout x is used"),
        (["nosuch.csv", "-o", "mattes"], "nosuch.csv: cannot be read"),
        (["own.csv", "-o", "."], "photos/cat.png: is used already by this"),
        (["empty/own.csv", "-o", "photos"], "photos/cat.png: is used already by this"),
        (["bad.csv", "-o", "mattes"], "expected `image,trimap` as its first line"),
        (["nul.csv", "-o", "mattes"], "nul.csv: line 2 has a NUL byte; expected text in UTF-8"),
        (["photos", "--trimaps", "trimaps", "-o", "loop"], "loop: cannot be written"),
        (["photos", "--trimaps", "trimaps", "-o", "bad.csv"], "bad.csv: cannot be written"),
        ([*FOLDERS, "--failures", "nosuch/f.csv"], "nosuch/f.csv: cannot be written"),
        ([*FOLDERS, "--composite", "x", "--background", "nosuch.png"], "nosuch.png: no such file"),
    ],
)
def test_wrong_usage_writes_nothing(run, make_pairs, arguments, message):
    make_pairs(["cat.png"])
    Path("empty").mkdir()
    Path("loop").symlink_to("loop")
    Path("bad.csv").write_text("photo,mask\ncat.png,dog.png\n")
    Path("nul.csv").write_text("image,trimap\nphotos\0/cat.png,trimaps/cat.png\n")
    Path("own.csv").write_text("image,trimap\nphotos/cat.png,trimaps/cat.png\n")
    Path("empty/own.csv").write_text("image,trimap\n../photos/cat.png,../trimaps/cat.png\n")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("mattes").exists()
