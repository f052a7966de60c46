"""The command line with many photos: what it makes, skips, and reports."""

import contextlib
import csv
import fcntl
import json
import os
import pty
import re
import struct
import termios
from pathlib import Path

import numpy as np
import pytest

from matting.images import read_trimap, write_image

NOBODY = "127.0.0.1:1"
FOLDERS = ("photos", "--trimaps", "trimaps", "-o", "mattes")


def test_all_outputs(run, make_pairs):
    make_pairs(["cat.png", "dog.png"])
    outputs = ("--cutout", "cutouts", "--composite", "new", "--background", "photos/dog.png")
    assert run(*FOLDERS, *outputs)[0] == 0
    for folder in ("mattes", "cutouts", "new"):
        assert sorted(path.name for path in Path(folder).iterdir()) == ["cat.png", "dog.png"]


def test_second_run_makes_only_what_is_missing(run, make_pairs, check_mattes):
    expected = make_pairs([f"{i}.png" for i in range(6)])
    assert run(*FOLDERS)[0] == 0
    Path("mattes/3.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("mattes").iterdir()}
    code, out, _ = run(*FOLDERS)
    assert (code, out) == (0, "1 written, 5 already there, 0 failed\n")
    check_mattes(Path("mattes"), expected)
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


def test_what_is_empty_or_older_than_its_photo_or_trimap(run, make_pairs, check_mattes):
    """The empty is made again; the older is kept, and told."""
    expected = make_pairs([f"{i}.png" for i in range(4)])
    assert run(*FOLDERS)[0] == 0
    Path("mattes/0.png").write_bytes(b"")
    made = Path("mattes/3.png").stat().st_mtime
    for changed in ("photos/1.png", "trimaps/2.png"):
        os.utime(changed, (made + 10, made + 10))
    told = "2 of those already there are older than their photo or trimap; delete them to have them"
    code, out, _ = run(*FOLDERS)
    assert (code, out.splitlines()[0]) == (0, "1 written, 3 already there, 0 failed")
    assert told in out
    check_mattes(Path("mattes"), expected)
    records = [json.loads(line) for line in run(*FOLDERS, "--json")[1].splitlines()]
    assert [record.get("outdated", False) for record in records] == [False, True, True, False]


def test_what_is_finished_may_lose_its_photo(run, make_pairs):
    make_pairs(["a.png"])
    Path("list.csv").write_text("image,trimap\nphotos/a.png,trimaps/a.png\n")
    assert run("list.csv", "-o", "mattes")[0] == 0
    Path("photos/a.png").unlink()
    assert run("list.csv", "-o", "mattes")[:2] == (0, "0 written, 1 already there, 0 failed\n")


def test_order_and_bytes_do_not_depend_on_jobs(run, make_pairs, launch_standin, standin):
    make_pairs([f"{i}.png" for i in range(30)])
    Path("photos/7.png").write_bytes(b"")
    other = launch_standin(seconds=0.02)  # slower than the first: answers overtake each other
    results = {}
    for jobs in (1, 13):
        folder = Path(f"mattes-{jobs}")
        code, out, _ = run(
            *FOLDERS[:-1], folder, "--jobs", jobs, "--json",
            url=[standin.grpc_url, other.grpc_url],
        )  # fmt: skip
        assert code == 1
        records = [json.loads(line) for line in out.splitlines()]
        assert [record.pop("alpha") for record in records] == [
            f"{folder}/{i}.png" for i in sorted(range(30), key=lambda i: f"{i}.png")
        ]
        names = {record.pop("request", None) for record in records}
        assert len(names) == 30  # drawn at random: names for the logs, and no result
        results[jobs] = records, {path.name: path.read_bytes() for path in folder.iterdir()}
    assert results[1] == results[13]
    assert len(results[1][1]) == 29


def test_bad_files_are_reported_and_do_not_stop_the_rest(run, make_pairs, tmp_path, check_mattes):
    expected = make_pairs(["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"])
    Path("photos/a.png").write_text("a recipe")
    Path("trimaps/b.png").unlink()
    write_image("trimaps/c.png", np.zeros((3, 4), np.uint8))
    write_image("trimaps/d.bmp", np.zeros((9, 12), np.uint8))
    write_image("photos/e.bmp", np.zeros((9, 12), np.uint8))
    code, out, err = run(*FOLDERS, "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 already there, 6 failed\n")
    check_mattes(Path("mattes"), {"f.png": expected["f.png"]})
    reasons = {
        "photos/a.png": "is not an image of a known format",
        "photos/b.png": "no trimap trimaps/b.*",
        "photos/c.png": "expected the same size",
        "photos/d.png": "several trimaps (d.bmp, d.png)",
        "photos/e.bmp": "2 photos would become e.png",
        "photos/e.png": "2 photos would become e.png",
    }
    with Path("failures.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert rows.keys() == reasons.keys()
    for image, reason in reasons.items():
        assert reason in rows[image]["error"]
        assert f"failed: {rows[image]['error']}\n" in err
    assert rows["photos/c.png"]["trimap"] == "trimaps/c.png"


def test_a_files_name_does_not_steer_the_terminal(run, make_pairs):
    name = "\x1b[2J\x9b\n.png"
    make_pairs([name])
    Path("photos", name).write_text("a recipe")
    reason = r"photos/\x1b[2J\x9b\n.png: is not an image"
    assert f"failed: {reason}" in run(*FOLDERS)[2]
    assert f"error: {reason}" in run(f"photos/{name}", f"trimaps/{name}", "-o", "alpha.png")[2]


@pytest.mark.parametrize("place", [".", "lists"])
def test_failures_are_tried_again(run, make_pairs, place, check_mattes):
    """From wherever the list is, into the same places."""
    names = ["a/b.c/cat.png", "bird.png", "dog.png"]
    expected = make_pairs(names)
    Path(place).mkdir(exist_ok=True)
    failures = Path(place, "failures.csv")
    good = Path("photos", names[0]).read_bytes()
    Path("photos", names[0]).write_text("a recipe")
    Path("trimaps/bird.png").rename("bird.png")
    assert run(*FOLDERS, "--failures", failures)[0] == 1

    Path("photos", names[0]).write_bytes(good)
    Path("bird.png").rename("trimaps/bird.png")
    code, out, err = run(failures, "-o", "mattes", "--failures", failures)
    assert (code, out) == (2, "")
    assert "failures.csv: is used already by this command; choose another name" in err
    code, out, _ = run(failures, "-o", "mattes")
    assert (code, out) == (0, "2 written, 0 already there, 0 failed\n")
    check_mattes(Path("mattes"), expected)


def test_masks_that_are_taken_for_trimaps_are_told(run, make_pairs):
    make_pairs(["a.png", "b.png", "c.png"])
    for name in ("a.png", "b.png"):
        mask = read_trimap(f"trimaps/{name}")
        write_image(f"trimaps/{name}", np.where(mask == 128, 255, mask).astype(np.uint8))
    code, out, _ = run(*FOLDERS)
    assert (code, out) == (
        0,
        "3 written, 0 already there, 0 failed\n"
        "trimaps without unknown pixels, used as alphas: 2 (if they are masks: --mask)\n",
    )
    code, out, _ = run(*FOLDERS[:3], "-o", "mattes-2", "--quiet")
    assert (code, out) == (0, "")


def test_failures_of_a_run_without_any_are_none(run, make_pairs):
    make_pairs(["a.png"])
    Path("failures.csv").write_text("of an earlier run")
    assert run(*FOLDERS, "--failures", "failures.csv")[0] == 0
    assert Path("failures.csv").read_text().splitlines() == ["image,trimap,output,error"]


def test_outputs_of_one_photo_are_all_or_none(run, make_pairs, check_mattes):
    expected = make_pairs(["cat.png", "dog.png"])
    Path("cutouts/cat.png").mkdir(parents=True)  # in the way of the cut-out
    Path("cutouts/cat.png/keep").touch()
    code, _, err = run(*FOLDERS, "--cutout", "cutouts")
    assert code == 1
    assert "cat.png" in err
    check_mattes(Path("mattes"), {"dog.png": expected["dog.png"]})


def test_without_a_server_the_rest_is_not_tried(run, make_pairs):
    make_pairs([f"{i:02}.png" for i in range(40)])
    arguments = (*FOLDERS, "--timeout", 0.5, "--jobs", 2, "--json", "--quiet")
    code, out, err = run(*arguments, url=NOBODY)
    assert code == 1
    errors = [json.loads(line)["error"] for line in out.splitlines()]
    assert len(errors) == 40
    assert f"no server at {NOBODY}" in errors[0]
    assert sum("not tried: the server was gone" in error for error in errors) == 38
    assert "failed: 20 more, --failures CSV lists all\n" in err
    assert list(Path("mattes").iterdir()) == []


def test_a_server_without_the_model_does_not_end_the_run_of_another(
    run, make_pairs, launch_standin, standin
):
    make_pairs([f"{i}.png" for i in range(9)])
    url = launch_standin(name="other").grpc_url
    arguments = (*FOLDERS, "--jobs", 1, "--json")
    errors = [json.loads(line)["error"] for line in run(*arguments, url=url)[1].splitlines()]
    assert "does not serve the model 'dim'" in errors[0]
    assert errors[1:] == [f"photos/{i}.png: not tried: the server was gone" for i in range(1, 9)]
    out = run(*arguments, url=[url, standin.grpc_url])[1]
    errors = [json.loads(line).get("error") for line in out.splitlines()]
    assert None in errors
    assert all("does not serve the model 'dim'" in error for error in errors if error)


@pytest.mark.parametrize("done", [0, 15])
def test_progress_on_a_terminal(start, run, standin, make_pairs, monkeypatch, done):
    monkeypatch.setenv("TQDM_MININTERVAL", "0")  # every step is shown, not ten a second
    make_pairs([f"{i}.png" for i in range(done)])
    if done:
        assert run(*FOLDERS)[0] == 0
    make_pairs([f"{i}.png" for i in range(20)])
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    program = start(*FOLDERS, "--url", standin.grpc_url, stderr=slave)
    out, _ = program.communicate(timeout=60)
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # Linux's way to end a terminal's output
        while True:
            written += os.read(master, 1000)
    os.close(master)
    shown = written.decode()
    assert out.splitlines()[0] == f"{20 - done} written, {done} already there, 0 failed"
    assert f"{20 - done}/{20 - done}" in shown  # the rest took no time
    totals = set(map(int, re.findall(r"\d/(\d+) \[", shown)))
    assert totals == set(range(20 - done, 21))
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, .*photo/s\]", shown)  # spent, left, rate
