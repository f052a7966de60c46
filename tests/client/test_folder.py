"""The command line with many photos: pairing, many requests at once, failures, interruptions."""

import contextlib
import csv
import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from matting.images import read_trimap, write_image

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:1"


@pytest.fixture
def start(tmp_path):
    """Start the command as a program of its own in tmp_path."""
    running = []

    def start_program(*arguments, **options):
        running.append(
            subprocess.Popen(
                [sys.executable, ROOT / "client" / "matte.py", *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                text=True,
                **{"stdout": subprocess.PIPE, **options},
            )
        )
        return running[-1]

    yield start_program
    for program in running:
        program.kill()
        program.communicate()


@pytest.fixture
def make_pairs(tmp_path, make_picture, expected_alpha):
    """Write photos/NAME and trimaps/NAME.png; return the alpha that each name must get."""

    def make(names, size=(9, 12)):
        expected = {}
        for seed, name in enumerate(names):
            image, trimap = make_picture(*size, seed)
            for folder, path, array in (
                ("photos", Path(name), image),
                ("trimaps", Path(name).with_suffix(".png"), trimap),
            ):
                (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
                write_image(tmp_path / folder / path, array)
            expected[str(Path(name).with_suffix(".png"))] = expected_alpha(image, trimap)
        return expected

    return make


def check_mattes(folder, expected):
    """The folder holds exactly these mattes, and nothing else, hidden or half-written."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    assert found == set(expected)
    for name, alpha in expected.items():
        np.testing.assert_array_equal(read_trimap(folder / name), alpha, err_msg=name)


FOLDERS = ("photos", "--trimaps", "trimaps", "-o", "mattes")


def test_folder_with_subfolders(run, make_pairs):
    expected = make_pairs(["cat.png", "a/cat.bmp", "a/b.c/dog.v2.tif"])
    code, out, err = run(*FOLDERS)
    assert (code, out, err) == (0, "3 written, 0 were there, 0 failed\n", "")
    check_mattes(Path("mattes"), expected)


def test_links_to_folders_are_followed(run, make_pairs, tmp_path):
    """But not in circles, and not into outputs."""
    expected = make_pairs(["cat.png", "a/dog.png"])
    Path("photos/a").rename("elsewhere")
    Path("mattes").mkdir()
    for name, target in (("a", "elsewhere"), ("made", "mattes"), ("a/up", "photos")):
        Path("photos", name).symlink_to(tmp_path / target)
    for done in (0, 2):
        code, out, err = run(*FOLDERS)
        assert (code, out, err) == (0, f"{2 - done} written, {done} were there, 0 failed\n", "")
    check_mattes(Path("mattes"), expected)


def test_a_link_that_leads_nowhere_is_a_photo_that_fails(run, make_pairs):
    expected = make_pairs(["cat.png", "gone.png", "loop.png"])
    for name in ("gone.png", "loop.png"):
        Path("photos", name).unlink()
        Path("photos", name).symlink_to("nosuch.png" if name == "gone.png" else name)
    code, out, err = run(*FOLDERS)
    assert (code, out) == (1, "1 written, 0 were there, 2 failed\n")
    assert "failed: photos/gone.png: no such file" in err
    assert "failed: photos/loop.png: cannot be read (Too many levels" in err
    check_mattes(Path("mattes"), {"cat.png": expected["cat.png"]})


def test_a_folder_that_may_not_be_read_is_a_failure(run, make_pairs, monkeypatch):
    expected = make_pairs(["cat.png", "closed/dog.png"])
    scandir = os.scandir

    def refuse_closed(folder):  # root may read all
        if str(folder) == "photos/closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr("client.pairs.os.scandir", refuse_closed)
    code, out, err = run(*FOLDERS, "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 were there, 1 failed\n")
    reason = "what is in this folder cannot be listed (Permission denied)"
    assert err == f"failed: photos/closed: {reason}\n"
    check_mattes(Path("mattes"), {"cat.png": expected["cat.png"]})


def test_other_files_are_no_photos(run, make_pairs):
    expected = make_pairs(["cat.png"])
    Path("photos/notes.txt").write_text("notes")
    for hidden in ("._cat.png", ".thumbnails/cat.png", "a/.7yx/cat.png"):
        Path("photos", hidden).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", hidden).write_bytes(b"another program's")
    Path("trimaps/.7yx").mkdir()
    Path("trimaps/.7yx/cat.png").touch()
    assert run(*FOLDERS)[0] == 0
    check_mattes(Path("mattes"), expected)


def test_trimaps_and_outputs_below_the_photos_are_no_photos(run, make_pairs):
    expected = make_pairs(["cat.png"])
    Path("trimaps").rename("photos/trimaps")
    for _ in range(2):
        arguments = ("photos", "--trimaps", "photos/trimaps", "-o", "photos/mattes")
        assert run(*arguments)[0] == 0
    check_mattes(Path("photos/mattes"), expected)


def test_glob(run, make_pairs):
    expected = make_pairs(["cat.png", "a/cat.bmp", "a/dog.bmp"])
    del expected["cat.png"]
    assert run("photos/**/*.bmp", *FOLDERS[1:])[0] == 0
    check_mattes(Path("mattes"), expected)


def test_list(run, make_pairs, tmp_path):
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


def test_names_that_are_no_valid_text(start, standin, make_pairs, tmp_path):
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


def test_list_with_places(run, make_pairs):
    expected = make_pairs(["cat.png", "dog.png"])
    Path("pairs.csv").write_text(
        "output,image,trimap\nb/c.png,photos/cat.png,trimaps/cat.png\n"
        ",photos/dog.png,trimaps/dog.png\n"
    )
    assert run("pairs.csv", "-o", "mattes")[0] == 0
    found = {"b/c.png": expected["cat.png"], "photos/dog.png": expected["dog.png"]}
    check_mattes(Path("mattes"), found)


def test_places_with_suffixes(run, make_pairs):
    expected = make_pairs(["cat.png", "dog.png", "owl.png"])
    places = {"cat": "x/cat.tif", "dog": "x/dog.gif", "owl": "x/owl"}
    rows = [f"{place},photos/{n}.png,trimaps/{n}.png\n" for n, place in places.items()]
    Path("pairs.csv").write_text("output,image,trimap\n" + "".join(rows))
    assert run("pairs.csv", "-o", "mattes")[0] == 0
    found = {"x/cat.tif": "cat.png", "x/dog.png": "dog.png", "x/owl.png": "owl.png"}
    check_mattes(Path("mattes"), {place: expected[name] for place, name in found.items()})


def test_places_outside_are_failures(run, make_pairs, tmp_path):
    expected = make_pairs(["cat.png", "dog.png", "owl.png", "ant.png"])
    places = {"cat": f"{tmp_path}/cat.png", "dog": "../dog.png", "owl": "cat.png", "ant": "."}
    rows = [f"{place},photos/{n}.png,trimaps/{n}.png\n" for n, place in places.items()]
    Path("pairs.csv").write_text("output,image,trimap\n" + "".join(rows))
    code, out, err = run("pairs.csv", "-o", "mattes", "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 were there, 3 failed\n")
    lines = [
        f"failed: photos/{name}.png: the output {places[name]} is not below the output folders"
        for name in ("cat", "dog", "ant")
    ]
    assert err.splitlines() == lines
    check_mattes(Path("mattes"), {"cat.png": expected["owl.png"]})
    assert run("failures.csv", "-o", "mattes")[2].splitlines() == lines


def test_a_place_that_cannot_be_is_one_failure(run, make_pairs):
    expected = make_pairs(["cat.png", "dog.png"])
    Path("pairs.csv").write_text(
        f"output,image,trimap\n{'c' * 300}.png,photos/cat.png,trimaps/cat.png\n"
        "dog.png,photos/dog.png,trimaps/dog.png\n"
    )
    code, out, err = run("pairs.csv", "-o", "mattes")
    assert (code, out) == (1, "1 written, 0 were there, 1 failed\n")
    assert err == f"failed: mattes/{'c' * 300}.png: File name too long\n"
    check_mattes(Path("mattes"), {"dog.png": expected["dog.png"]})


def test_all_outputs(run, make_pairs):
    make_pairs(["cat.png", "dog.png"])
    outputs = ("--cutout", "cutouts", "--composite", "new", "--background", "photos/dog.png")
    assert run(*FOLDERS, *outputs)[0] == 0
    for folder in ("mattes", "cutouts", "new"):
        assert sorted(path.name for path in Path(folder).iterdir()) == ["cat.png", "dog.png"]


def test_second_run_makes_only_what_is_missing(run, make_pairs):
    expected = make_pairs([f"{i}.png" for i in range(6)])
    assert run(*FOLDERS)[0] == 0
    Path("mattes/3.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("mattes").iterdir()}
    code, out, _ = run(*FOLDERS)
    assert (code, out) == (0, "1 written, 5 were there, 0 failed\n")
    check_mattes(Path("mattes"), expected)
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


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


def test_bad_files_are_reported_and_do_not_stop_the_rest(run, make_pairs, tmp_path):
    expected = make_pairs(["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"])
    Path("photos/a.png").write_text("a recipe")
    Path("trimaps/b.png").unlink()
    write_image("trimaps/c.png", np.zeros((3, 4), np.uint8))
    write_image("trimaps/d.bmp", np.zeros((9, 12), np.uint8))
    write_image("photos/e.bmp", np.zeros((9, 12), np.uint8))
    code, out, err = run(*FOLDERS, "--failures", "failures.csv")
    assert (code, out) == (1, "1 written, 0 were there, 6 failed\n")
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


@pytest.mark.parametrize("place", [".", "lists"])
def test_failures_are_tried_again(run, make_pairs, place):
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
    assert "failures.csv: is the list to work on; choose another name" in err
    code, out, _ = run(failures, "-o", "mattes")
    assert (code, out) == (0, "2 written, 0 were there, 0 failed\n")
    check_mattes(Path("mattes"), expected)


def test_masks_that_are_taken_for_trimaps_are_told(run, make_pairs):
    make_pairs(["a.png", "b.png", "c.png"])
    for name in ("a.png", "b.png"):
        mask = read_trimap(f"trimaps/{name}")
        write_image(f"trimaps/{name}", np.where(mask == 128, 255, mask).astype(np.uint8))
    code, out, _ = run(*FOLDERS)
    assert (code, out) == (
        0,
        "3 written, 0 were there, 0 failed\n"
        "trimaps without unknown pixels: 2; they are the alphas (masks? --mask)\n",
    )
    code, out, _ = run(*FOLDERS[:3], "-o", "mattes-2", "--quiet")
    assert (code, out) == (0, "")


def test_failures_of_a_run_without_any_are_none(run, make_pairs):
    make_pairs(["a.png"])
    Path("failures.csv").write_text("of an earlier run")
    assert run(*FOLDERS, "--failures", "failures.csv")[0] == 0
    assert Path("failures.csv").read_text().splitlines() == ["image,trimap,output,error"]


def test_outputs_of_one_photo_are_all_or_none(run, make_pairs):
    expected = make_pairs(["cat.png", "dog.png"])
    Path("cutouts/cat.png").mkdir(parents=True)  # in the way of the cut-out
    Path("cutouts/cat.png/keep").touch()
    code, _, err = run(*FOLDERS, "--cutout", "cutouts")
    assert code == 1
    assert "cat.png" in err
    check_mattes(Path("mattes"), {"dog.png": expected["dog.png"]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos", "-o", "mattes"], "name the folder of their trimaps with --trimaps"),
        (["photos", "--trimaps", "nosuch", "-o", "mattes"], "--trimaps nosuch is not a folder"),
        (["nosuch/*.png", "--trimaps", "trimaps", "-o", "mattes"], "no photos in nosuch/*.png"),
        (["empty", "--trimaps", "trimaps", "-o", "mattes"], "no photos in empty"),
        (["photos", "--trimaps", "photos", "-o", "mattes"], "need folders of their own"),
        (["photos", "--trimaps", "trimaps", "-o", "photos"], "--alpha photos is used already"),
        (["photos", "--trimaps", "trimaps", "-o", "x", "--cutout", "x"], "--cutout x is used"),
        (["nosuch.csv", "-o", "mattes"], "nosuch.csv: cannot be read"),
        (["own.csv", "-o", "."], "photos/cat.png: is an input of own.csv"),
        (["empty/own.csv", "-o", "photos"], "photos/cat.png: is an input of empty/own.csv"),
        (["bad.csv", "-o", "mattes"], "expected a first line `image,trimap`"),
        (["photos", "--trimaps", "trimaps", "-o", "bad.csv"], "bad.csv: cannot be written"),
        ([*FOLDERS, "--failures", "nosuch/f.csv"], "nosuch/f.csv: cannot be written"),
        ([*FOLDERS, "--composite", "x", "--background", "nosuch.png"], "nosuch.png: no such file"),
    ],
)
def test_wrong_usage_writes_nothing(run, make_pairs, arguments, message):
    make_pairs(["cat.png"])
    Path("empty").mkdir()
    Path("bad.csv").write_text("photo,mask\ncat.png,dog.png\n")
    Path("own.csv").write_text("image,trimap\nphotos/cat.png,trimaps/cat.png\n")
    Path("empty/own.csv").write_text("image,trimap\n../photos/cat.png,../trimaps/cat.png\n")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("mattes").exists()


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


def test_a_server_killed_and_restarted_loses_nothing(
    start, make_pairs, launch_standin, kill, tmp_path, wait_until
):
    expected = make_pairs([f"{i:04}.png" for i in range(2000)])
    servers = [launch_standin(seconds=0.01) for _ in range(2)]
    urls = [word for server in servers for word in ("--url", server.grpc_url)]
    lines = tmp_path / "lines"  # more of them than a pipe holds
    with lines.open("w") as file:
        arguments = (*FOLDERS, *urls, "--json", "--timeout", 60)
        program = start(*arguments, stdout=file, stderr=subprocess.PIPE)

    def written():
        return len(list(tmp_path.glob("mattes/*.png")))

    wait_until(lambda: written() >= 300)
    kill(servers[0])
    wait_until(lambda: written() >= 600)
    assert program.poll() is None
    restarted = launch_standin(grpc_port=int(servers[0].grpc_url.rpartition(":")[2]))
    _, err = program.communicate(timeout=120)

    assert (program.returncode, err) == (0, "")
    check_mattes(tmp_path / "mattes", expected)
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [Path(record["alpha"]).name for record in records] == sorted(expected)
    assert {record["status"] for record in records} == {"written"}
    with InferenceServerClient(restarted.grpc_url) as client:
        stats = client.get_inference_statistics("dim").model_stats[0]
    assert stats.inference_count > 0  # it was found again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_leaves_whole_files_and_the_next_goes_on(
    start, run, make_pairs, launch_standin, tmp_path, wait_until, number
):
    expected = make_pairs([f"{i:03}.png" for i in range(200)])
    (tmp_path / "photos/000.bmp").write_text("a recipe")
    (tmp_path / "trimaps/000.png").rename(tmp_path / "000.png")
    del expected["000.png"]
    url = launch_standin(seconds=0.02).grpc_url
    arguments = (*FOLDERS, "--failures", "failures.csv", "--url", url)
    program = start(*arguments, stderr=subprocess.PIPE)
    wait_until(lambda: len(list(tmp_path.glob("mattes/*.png"))) >= 10)
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert out == ""
    if number == signal.SIGKILL:
        assert (program.returncode, err) == (-number, "")
        for leftover in (tmp_path / "mattes").glob(".*"):  # of files that were being written
            shutil.rmtree(leftover)
    else:
        assert program.returncode == 130
        assert err == "error: stopped; what is written is whole\n"
    done = {path.name for path in (tmp_path / "mattes").iterdir()}
    assert 10 <= len(done) < 199
    check_mattes(tmp_path / "mattes", {name: expected[name] for name in done})
    assert "photos/000.bmp" in (tmp_path / "failures.csv").read_text()

    code, out, _ = run(*FOLDERS)
    assert (code, out) == (1, f"{199 - len(done)} written, {len(done)} were there, 2 failed\n")
    check_mattes(tmp_path / "mattes", expected)


def test_a_run_under_nohup_outlives_its_terminal(start, make_pairs, launch_standin, tmp_path):
    expected = make_pairs([f"{i}.png" for i in range(4)])
    url = launch_standin(seconds=0.5).grpc_url
    program = start(
        *FOLDERS, "--url", url, "--jobs", 1, "--json",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    program.stdout.readline()
    program.send_signal(signal.SIGHUP)
    program.communicate(timeout=60)
    assert program.returncode == 0
    check_mattes(tmp_path / "mattes", expected)


def test_who_reads_the_lines_may_leave(start, standin, make_pairs):
    make_pairs(["cat.png"])
    reader, writer = os.pipe()
    os.close(reader)
    arguments = (*FOLDERS, "--url", standin.grpc_url, "--json")
    program = start(*arguments, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (1, "")


@pytest.mark.parametrize("done", [0, 15])
def test_progress_on_a_terminal(start, run, standin, make_pairs, tmp_path, done):
    make_pairs([f"{i}.png" for i in range(done)])
    if done:
        assert run(*FOLDERS)[0] == 0
    make_pairs([f"{i}.png" for i in range(20)])
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    program = start(*FOLDERS, "--url", standin.grpc_url, stderr=slave)
    out, _ = program.communicate(timeout=60)
    os.close(slave)
    shown = ""
    with contextlib.suppress(OSError):  # Linux's way to end a terminal's output
        while True:
            shown += os.read(master, 1000).decode()
    os.close(master)
    assert out == f"{20 - done} written, {done} were there, 0 failed\n"
    assert f"{20 - done}/{20 - done}" in shown  # the rest took no time
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, .*photo/s\]", shown)  # spent, left, rate
