"""Photos handed over in shared memory: the same alphas, and nothing left in memory."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferenceServerException

import client.transport
from client.errors import ServerTimeoutError, SharedMemoryError
from client.matte import Matte
from client.transport import InSharedMemory
from matting.images import write_image
from server.launcher import launch

ROOT = Path(__file__).parents[2]
DEVICE = Path("/dev/shm")
OURS = f"dim-{os.getpid()}-*"
"""Pieces of memory of this process."""
pytestmark = pytest.mark.skipif(not DEVICE.is_dir(), reason="shared memory as Linux has it")


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not list(DEVICE.glob(OURS))


@pytest.fixture(scope="module")
def sharing(standin_repository):
    with launch(standin_repository, shm=True) as server:
        yield server


@pytest.fixture
def wait_until_returned(wait_until):
    """Wait until a server has let go of all memory: Triton does so a moment after its answer."""

    def wait(server):
        with InferenceServerClient(server.grpc_url) as client:
            wait_until(lambda: not client.get_system_shared_memory_status().regions)

    return wait


@pytest.mark.parametrize("tile", ["off", 96])
def test_same_alpha(sharing, make_picture, expected_alpha, wait_until_returned, tile):
    with Matte(sharing.grpc_url, shm=True) as matte:
        for size in ((1, 1), (37, 53), (300, 411)):
            image, trimap = make_picture(*size)
            alpha = matte.alpha(image, trimap, tile)
            np.testing.assert_array_equal(alpha, expected_alpha(image, trimap))
            alpha[:] = 0  # the caller's own
    wait_until_returned(sharing)


def test_parts_of_larger_arrays(sharing, make_picture, expected_alpha):
    image, trimap = make_picture(60, 80)
    image, trimap = image[::2, ::-1], trimap[::2, ::-1]
    with Matte(sharing.grpc_url, shm=True) as matte:
        np.testing.assert_array_equal(matte.alpha(image, trimap), expected_alpha(image, trimap))


def test_many_threads(sharing, make_picture, expected_alpha, wait_until_returned):
    def is_right(seed):
        image, trimap = make_picture(40 + seed % 8, 50, seed)
        return np.array_equal(matte.alpha(image, trimap), expected_alpha(image, trimap))

    with Matte(sharing.grpc_url, shm=True) as matte, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, range(60)))
    wait_until_returned(sharing)


def test_folder(run, sharing, make_picture, tmp_path):
    for name in "abc":
        image, trimap = make_picture(20, 30)
        for folder, array in (("photos", image), ("trimaps", trimap)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}.png", array)
    arguments = ("photos", "--trimaps", "trimaps")
    assert run(*arguments, "-o", "plain")[0] == 0
    code, out, err = run(*arguments, "-o", "shared", "--shm", url=sharing.grpc_url)
    assert (code, out, err) == (0, "3 written, 0 already there, 0 failed\n", "")
    for name in "abc":
        plain, shared = (Path(folder, f"{name}.png").read_bytes() for folder in ("plain", "shared"))
        assert plain == shared


def test_closed_server(refuse, files, standin):
    message = refuse(*files, "-o", "alpha.png", "--shm", url=standin.grpc_url)
    assert "start it on this machine with `python -m server --shm`, or leave out" in message


def test_server_that_sees_other_memory(sharing, picture, monkeypatch):
    register = InferenceServerClient.register_system_shared_memory

    def elsewhere(self, name, key, *arguments, **options):
        register(self, name, f"{key}-elsewhere", *arguments, **options)

    monkeypatch.setattr(InferenceServerClient, "register_system_shared_memory", elsewhere)
    with Matte(sharing.grpc_url, shm=True) as matte, pytest.raises(SharedMemoryError):
        matte.alpha(*picture)


def test_no_room(sharing, picture, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client.transport.os, "posix_fallocate", full)
    message = r"no shared memory of 0\.0 MB in /dev/shm \(No space left on device\)"
    matte = Matte(sharing.grpc_url, shm=True)
    with matte, pytest.raises(SharedMemoryError, match=message):
        matte.alpha(*picture)


def test_several_servers(refuse, files, standin):
    urls = [standin.grpc_url, standin.grpc_url]
    assert "one server" in refuse(*files, "-o", "alpha.png", "--shm", url=urls)
    with pytest.raises(ValueError, match="shared memory with 2 servers, expected one"):
        Matte(urls, shm=True)


def test_memory_is_used_again(sharing, make_picture, expected_alpha):
    with Matte(sharing.grpc_url, shm=True) as matte:
        for seed, size in enumerate([(30, 40), (30, 40), (9, 12), (50, 60), (1, 1)]):
            image, trimap = make_picture(*size, seed)
            np.testing.assert_array_equal(matte.alpha(image, trimap), expected_alpha(image, trimap))
            (piece,) = DEVICE.glob(OURS)
            assert piece.stat().st_size == (30 * 40 if seed < 3 else 50 * 60) * 5


def test_memory_of_a_request_that_was_turned_away_is_used_again(sharing, picture):
    batch = picture[0][np.newaxis], picture[1][np.newaxis, :, :, np.newaxis]
    full = InferenceServerException("Exceeds maximum queue size", "StatusCode.UNAVAILABLE")
    with (
        InferenceServerClient(sharing.grpc_url) as server,
        closing(InSharedMemory(server)) as carrier,
    ):
        for error, is_left in ((full, True), (RuntimeError(), False)):
            with pytest.raises(type(error)), carrier.carry(*batch, 60):
                (piece,) = DEVICE.glob(OURS)
                raise error
            assert piece.exists() == is_left


@pytest.mark.parametrize("idle", [1, 4])
def test_restarted_server(launch_standin, kill, picture, expected_alpha, idle):
    server = launch_standin(shm=True)
    with Matte(server.grpc_url, shm=True) as matte:
        with ThreadPoolExecutor(idle) as pool:
            list(pool.map(lambda _: matte.alpha(*picture), range(5 * idle)))
        kill(server)
        launch_standin(shm=True, grpc_port=int(server.grpc_url.rpartition(":")[2]))
        np.testing.assert_array_equal(matte.alpha(*picture), expected_alpha(*picture))


def test_given_up_while_the_server_works(
    launch_standin, picture, expected_alpha, wait_until_returned
):
    """The server writes its late answer into memory that is still its own."""
    server = launch_standin(shm=True, seconds=1.5)
    with Matte(server.grpc_url, timeout=0.5, shm=True) as matte:
        for _ in range(3):
            with pytest.raises(ServerTimeoutError):
                matte.alpha(*picture)
        matte.timeout = 60
        np.testing.assert_array_equal(matte.alpha(*picture), expected_alpha(*picture))
    wait_until_returned(server)
    assert server.process.poll() is None


def test_closed_while_the_server_works(
    launch_standin, picture, wait_until, wait_until_returned, monkeypatch
):
    monkeypatch.setattr("client.transport.CLOSING", 30)  # a busy machine takes longer than a second
    server = launch_standin(shm=True, seconds=2)  # a second request then finds the first under way
    matte = Matte(server.grpc_url, shm=True)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(matte.alpha, *picture)
        with InferenceServerClient(server.grpc_url) as client:
            wait_until(lambda: len(client.get_system_shared_memory_status().regions) == 2)
        matte.close()
    wait_until_returned(server)


def test_closed_while_memory_is_registered(sharing, picture, monkeypatch):
    register = InferenceServerClient.register_system_shared_memory

    def slowly(self, *arguments, **options):
        register(self, *arguments, **options)
        registered.set()
        time.sleep(0.3)

    registered = Event()
    monkeypatch.setattr(InferenceServerClient, "register_system_shared_memory", slowly)
    monkeypatch.setattr("client.transport.CLOSING", 30)
    matte = Matte(sharing.grpc_url, shm=True)
    with ThreadPoolExecutor(1) as pool, InferenceServerClient(sharing.grpc_url) as server:
        pool.submit(matte.alpha, *picture)
        assert registered.wait(30)
        matte.close()
        assert not server.get_system_shared_memory_status().regions


def test_closed_before(sharing, picture):
    with InferenceServerClient(sharing.grpc_url) as server:
        carrier = InSharedMemory(server)
        carrier.close()
        with pytest.raises(RuntimeError, match="closed"), carrier.carry(*picture, 60):
            pass


def test_closed_while_the_server_is_too_busy_to_answer(
    launch_standin, picture, wait_until_returned, monkeypatch
):
    monkeypatch.setattr("client.transport.CLOSING", 30)
    server = launch_standin(shm=True)
    matte = Matte(server.grpc_url, shm=True)
    matte.alpha(*picture)
    server.process.send_signal(signal.SIGSTOP)
    Timer(2.5, server.process.send_signal, [signal.SIGCONT]).start()
    matte.close()
    wait_until_returned(server)


def test_killed_client(launch_standin, files, wait_until):
    server = launch_standin(shm=True, seconds=60)
    arguments = ("-o", files[0].parent / "alpha.png", "--shm", "--url", server.grpc_url)
    command = [sys.executable, ROOT / "client/matte.py", *files, *arguments]
    program = subprocess.Popen(command, cwd=ROOT)
    pieces = f"dim-{program.pid}-*"
    wait_until(lambda: any(piece.stat().st_blocks for piece in DEVICE.glob(pieces)))
    program.kill()
    program.wait()
    wait_until(lambda: not list(DEVICE.glob(pieces)))
