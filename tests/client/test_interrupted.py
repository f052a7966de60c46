"""The command line with many photos, when it, a server or who reads its lines stops half-way."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

FOLDERS = ("photos", "--trimaps", "trimaps", "-o", "mattes")


def test_a_server_killed_and_restarted_loses_nothing(
    start, make_pairs, launch_standin, kill, tmp_path, wait_until, check_mattes
):
    expected = make_pairs([f"{i:04}.png" for i in range(600)])
    servers = [launch_standin(seconds=0.04) for _ in range(2)]
    urls = [word for server in servers for word in ("--url", server.grpc_url)]
    lines = tmp_path / "lines"  # more of them than a pipe holds
    with lines.open("w") as file:
        arguments = (*FOLDERS, *urls, "--json", "--timeout", 60)
        program = start(*arguments, stdout=file, stderr=subprocess.PIPE)

    def written():
        return len(list(tmp_path.glob("mattes/*.png")))

    wait_until(lambda: written() >= 100)
    kill(servers[0])
    wait_until(lambda: written() >= 200)
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


def test_a_server_that_is_asked_to_stop_loses_nothing(
    start, make_pairs, launch_standin, tmp_path, wait_until, check_mattes
):
    """While it ends what is under way it says that it has no such model."""
    expected = make_pairs([f"{i:03}.png" for i in range(150)])
    servers = [launch_standin(seconds=0.04) for _ in range(2)]
    urls = [word for server in servers for word in ("--url", server.grpc_url)]
    program = start(*FOLDERS, *urls, "--timeout", 60, stderr=subprocess.PIPE)
    wait_until(lambda: len(list(tmp_path.glob("mattes/*.png"))) >= 20)
    servers[0].process.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=120)
    assert program.returncode == 0, err
    assert out == "150 written, 0 already there, 0 failed\n"
    check_mattes(tmp_path / "mattes", expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_leaves_whole_files_and_the_next_goes_on(
    start, run, make_pairs, launch_standin, tmp_path, wait_until, number, check_mattes
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
        for leftover in (tmp_path / "mattes").glob(".*.partial"):  # files that were begun
            shutil.rmtree(leftover)
    else:
        assert program.returncode == 130
        assert err == "error: stopped; all files written are complete\n"
    done = {path.name for path in (tmp_path / "mattes").iterdir()}
    assert 10 <= len(done) < 199
    check_mattes(tmp_path / "mattes", {name: expected[name] for name in done})
    assert "photos/000.bmp" in (tmp_path / "failures.csv").read_text()

    code, out, _ = run(*FOLDERS)
    assert (code, out) == (1, f"{199 - len(done)} written, {len(done)} already there, 2 failed\n")
    check_mattes(tmp_path / "mattes", expected)


def test_a_run_under_nohup_outlives_its_terminal(
    start, make_pairs, launch_standin, tmp_path, check_mattes
):
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


def test_a_stopped_run_does_not_wait_for_better_edges(
    start, launch_standin, make_pairs, tmp_path, wait_until
):
    make_pairs(["cat.png"])
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time, matting.knn\n"
        "def knn_alpha(*_):\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
        "matting.knn.knn_alpha = knn_alpha\n"
    )
    program = start(*FOLDERS, "--knn", "--url", launch_standin().grpc_url, stderr=subprocess.PIPE)
    wait_until((tmp_path / "begun").exists)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (130, "error: stopped; all files written are complete\n")


def test_a_run_that_is_stopped_at_once_says_nothing(start, tmp_path, wait_until):
    (tmp_path / "tqdm.py").write_text(
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    )
    program = start(*FOLDERS, stderr=subprocess.PIPE)
    wait_until((tmp_path / "begun").exists)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (-signal.SIGINT, "")  # 130 to a shell
