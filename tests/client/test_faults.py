"""What fails between the client and its files, its server and the clock."""

import errno
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from client import channel
from client.connection import Matte
from client.errors import ServerTimeoutError
from matting.images import write_image

COMMAND = [sys.executable, "-m", "client.matte"]
PATH = {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def run_limited(standin, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command in tmp_path where no file can grow beyond `size` bytes.

    To a program that is a disk with so much left: writing fails half-way through a file.
    """

    def run(size: int, *arguments: str | Path) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*COMMAND, *arguments, "--url", standin.grpc_url],
            cwd=tmp_path,
            env={**os.environ, **PATH, "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
            capture_output=True,
            text=True,
        )

    return run


def whole(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_full_disk_writes_nothing(run_limited, files, tmp_path) -> None:
    """The alpha fits, the cut-out does not: neither is written, and an older one stays."""
    (tmp_path / "alpha.png").write_bytes(b"an older matte")
    before = whole(tmp_path)
    outputs = ["-o", "alpha.png", "--cutout", "cutout.png"]
    done = run_limited(4000, *files, *outputs)
    assert done.returncode == 2
    assert done.stderr == "error: cutout.png: cannot be written (File too large)\n"
    assert whole(tmp_path) == before
    assert run_limited(10**6, *files, *outputs).returncode == 0


NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
"""Who may mount file systems of their own, root or not."""
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=8k none disk || exit
echo an older matte >disk/alpha.png
"$@"
code=$?
cp -r disk seen
exit $code
"""


def test_full_disk_for_real(standin, files, tmp_path) -> None:
    """As above, on a file system of two blocks of 4 KB: one is the older matte's."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        pytest.skip("a small file system needs user namespaces, which are closed here")
    (tmp_path / "disk").mkdir()
    outputs = ["-o", "disk/alpha.png", "--cutout", "disk/cutout.png"]
    client = [*COMMAND, *map(str, files), *outputs, "--url", standin.grpc_url]
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", ON_A_SMALL_DISK, "sh", *client],
        cwd=tmp_path,
        env={**os.environ, **PATH},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "error: disk/cutout.png: cannot be written (No space left on device)\n"
    assert done.returncode == 2
    assert whole(tmp_path / "seen") == {"alpha.png": b"an older matte\n"}


def test_full_disk_in_a_folder_of_photos(run_limited, make_picture, tmp_path) -> None:
    """Small photos are written, the large one is reported, and the next run finishes."""
    for name, size in (("a", 10), ("b", 90), ("c", 10)):
        for folder, pixels in zip(("photos", "trimaps"), make_picture(size, size), strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}.png", pixels)
    folders = ["photos", "--trimaps", "trimaps", "-o", "out"]
    done = run_limited(2000, *folders)
    assert done.returncode == 1
    assert "failed: " in done.stderr and "b.png: cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(whole(tmp_path / "out")) == ["a.png", "c.png"]
    done = run_limited(10**6, *folders)
    assert (done.returncode, done.stdout) == (0, "1 written, 2 already there, 0 failed\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_a_folder(run, make_picture, asked, monkeypatch, number) -> None:
    for seed in range(20):
        for folder, pixels in zip(("photos", "trimaps"), make_picture(9, 9, seed), strict=True):
            Path(folder).mkdir(exist_ok=True)
            write_image(f"{folder}/{seed:02}.png", pixels)

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("matting.images.os.fsync", refuse)
    code, out, err = run("photos", "--trimaps", "trimaps", "-o", "out", "--jobs", 1)
    assert (code, out) == (1, "0 written, 0 already there, 20 failed\n")
    reasons = err.splitlines()
    assert reasons[0] == f"failed: out/00.png: cannot be written ({os.strerror(number)})"
    assert reasons[1:] == [
        f"failed: photos/{i:02}.png: not tried: the disk was full" for i in range(1, 20)
    ]
    assert asked() == 1


def test_full_disk_under_a_video(run_limited, asked, make_picture, tmp_path) -> None:
    """It ends soon, not after all frames."""
    (tmp_path / "trimaps").mkdir()
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", 1, width=160, height=160, pix_fmt="bgr0")
        for number in range(40):
            image, _ = make_picture(160, 160, number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            write_image(tmp_path / f"trimaps/{number}.png", np.full_like(image[..., 0], 128))
    before = whole(tmp_path)
    for output in ("alpha.mkv", "frames"):
        done = run_limited(1000, "clip.mkv", "--trimaps", "trimaps", "-o", output)
        assert done.returncode == 2
        assert done.stderr == f"error: {output}: cannot be written (File too large)\n"
        assert whole(tmp_path) == before
    assert asked() < 40


class Line(NamedTuple):
    """A line to a server: its near end, and what befalls all connections that it has."""

    url: str
    cut: Callable[[], None]
    silence: Callable[[], None]
    """Nothing comes through any more, and nobody is told."""


@contextmanager
def line(url: str, bytes_per_second: float) -> Iterator[Line]:
    host, _, port = url.rpartition(":")
    ends: list[socket.socket] = []
    silent: set[socket.socket] = set()
    chunk = 4096

    def relay(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(chunk):
                time.sleep(len(data) / bytes_per_second)
                if source not in silent:
                    target.sendall(data)
        except OSError:  # cut
            pass
        for end in (source, target):
            end.close()

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
            except OSError:  # the end of the test
                return
            ends.extend((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=relay, args=pair, daemon=True).start()

    def cut() -> None:
        while ends:
            with ends.pop() as end, suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # A small window, or the kernel would take a whole picture at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, chunk)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        near_end = f"127.0.0.1:{listener.getsockname()[1]}"
        yield Line(near_end, cut, lambda: silent.update(ends))
        listener.shutdown(socket.SHUT_RDWR)
        cut()


def test_slow_line_is_waited_for(standin, make_picture, expected_alpha) -> None:
    image, trimap = make_picture(60, 100)
    with line(standin.grpc_url, 100_000) as slow, Matte(slow.url) as matte:
        np.testing.assert_array_equal(matte.alpha(image, trimap), expected_alpha(image, trimap))


def test_too_slow_a_line_is_said(standin, make_picture) -> None:
    with (
        line(standin.grpc_url, 2000) as slow,
        Matte(slow.url, timeout=1) as matte,
        pytest.raises(ServerTimeoutError, match=r"no answer from .* within 1 s"),
    ):
        matte.alpha(*make_picture(60, 100))


def test_a_cut_line_is_taken_up_again(standin, make_picture, expected_alpha) -> None:
    image, trimap = make_picture(60, 100)
    with (
        line(standin.grpc_url, 20_000) as slow,
        Matte(slow.url) as matte,
        ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(matte.alpha, image, trimap)
        time.sleep(0.5)  # it takes more than a second
        assert not answer.done()
        slow.cut()
        np.testing.assert_array_equal(answer.result(), expected_alpha(image, trimap))


def test_a_machine_that_vanishes_is_found_out(
    standin, make_picture, expected_alpha, monkeypatch
) -> None:
    """Long before the time of the request is over; then the photo is sent again."""
    monkeypatch.setattr(channel, "PING_PAUSE", (1, 1))
    monkeypatch.setattr(channel, "PING_TIMEOUT", 2)
    image, trimap = make_picture(60, 100)
    with (
        line(standin.grpc_url, 20_000) as slow,
        Matte(slow.url, timeout=3600) as matte,
        ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(matte.alpha, image, trimap)
        time.sleep(0.5)  # it takes more than a second
        assert not answer.done()
        slow.silence()
        found = answer.result(timeout=45)  # gRPC's own patience with a ping is 60 s
    np.testing.assert_array_equal(found, expected_alpha(image, trimap))


@pytest.mark.parametrize(("seconds", "timeout"), [(1, 60), (60, 2)])
def test_clock_that_jumps(
    launch_standin, files, tmp_path, jumping_clock, seconds: float, timeout: float
) -> None:
    """The client's, by four days; the server's: tests/server/test_faults.py."""
    server = launch_standin(seconds=seconds)
    arguments = [*files, "-o", tmp_path / "alpha.png", f"--timeout={timeout}"]
    with subprocess.Popen(
        [*COMMAND, *arguments, "--url", server.grpc_url],
        env={**os.environ, **PATH, **jumping_clock.environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        while client.poll() is None:
            jumping_clock.jump()
            time.sleep(0.2)
        errors = client.stderr.read()
    if timeout > seconds:
        assert client.returncode == 0, errors
    else:
        assert errors.startswith(f"error: no answer from {server.grpc_url} within {timeout} s")
