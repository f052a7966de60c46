"""The library `client.connection.Matte` against real Triton servers."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from client.channel import channel_options
from client.connection import Matte
from client.errors import (
    CancelledError,
    ModelMissingError,
    ServerRefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from client.request import Request

NOBODY = "127.0.0.1:1"
"""Nothing listens on port 1."""
CLOSED = "the connection to .* was closed"


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (200, 5), (37, 53)])
def test_alpha_of_any_size(standin, make_picture, expected_alpha, size):
    image, trimap = make_picture(*size)
    with Matte(standin.grpc_url) as matte:
        alpha = matte.alpha(image, trimap)
    assert alpha.dtype == np.uint8
    np.testing.assert_array_equal(alpha, expected_alpha(image, trimap))


def test_alpha_is_the_callers_own_to_change(standin, picture):
    with Matte(standin.grpc_url) as matte:
        alpha = matte.alpha(*picture)
    alpha += 1  # a view of the message would be read-only


def test_image_need_not_be_contiguous(standin, make_picture, expected_alpha):
    image, trimap = make_picture(30, 40)
    with Matte(standin.grpc_url) as matte:
        alpha = matte.alpha(image[::-1, ::2], trimap[::-1, ::2])
    np.testing.assert_array_equal(alpha, expected_alpha(image, trimap)[::-1, ::2])


@pytest.mark.parametrize(
    ("image", "trimap", "message"),
    [
        (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), "image is float64 (4, 4, 3)"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), "image is uint8 (4, 4)"),
        (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8), "image is uint8 (4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((0, 4), np.uint8), "not empty"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), "trimap is bool (4, 4)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint8), "trimap is uint8 (4, 4, 1)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4), np.uint8), "expected uint8 (4, 4), as"),
    ],
)
def test_wrong_arrays_are_named(image, trimap, message):
    with Matte(NOBODY) as matte, pytest.raises(ValueError, match=re.escape(message)):
        matte.alpha(image, trimap)


@pytest.mark.parametrize("url", ["localhost", "http://localhost:8001", ":8001", "localhost:grpc"])
def test_wrong_address_is_named(url):
    with pytest.raises(ValueError, match=f"server is '{url}', expected host:port"):
        Matte(url)


@pytest.mark.parametrize("url", ["localhost:0", "localhost:65536"])
def test_wrong_port_is_named(url):
    with pytest.raises(ValueError, match=f"server is '{url}', expected a port from 1 to 65535"):
        Matte(url)


def test_timeout_is_positive():
    with pytest.raises(ValueError, match="timeout is 0 seconds"):
        Matte(NOBODY, timeout=0)


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_timeout_may_be_endless(standin, picture, timeout):
    with Matte(standin.grpc_url, timeout) as matte:
        matte.alpha(*picture)


@pytest.mark.parametrize("server", ["127.0.0.1", "localhost"])
def test_no_proxy_is_asked_for_this_machine(standin, picture, monkeypatch, server):
    monkeypatch.setenv("http_proxy", f"http://{NOBODY}")
    monkeypatch.delenv("no_proxy", raising=False)
    port = standin.grpc_url.rpartition(":")[2]
    with Matte(f"{server}:{port}", timeout=5) as matte:
        matte.alpha(*picture)


@pytest.mark.parametrize(
    ("urls", "uses_proxy"),
    [
        (["gpu1:8001"], 1),
        (["10.0.0.7:8001"], 1),
        (["[::1]:8001"], 0),
        (["gpu1:8001", "gpu2:8001"], 0),
    ],
)
def test_a_proxy_is_for_one_server_elsewhere(urls, uses_proxy):
    assert dict(channel_options(urls, 60))["grpc.enable_http_proxy"] == uses_proxy


def test_unknown_host_among_several_is_named(standin):
    for host in ("nosuch.invalid", "gpu..local"):
        reason = f"'{host}' has no IPv4 address \\([^[]+\\); check"  # without "[Errno -2]"
        with pytest.raises(ServerUnavailableError, match=reason):
            Matte([standin.grpc_url, f"{host}:8001"])


def test_trimap_without_unknown_needs_no_server(picture):
    image, trimap = picture
    known = np.where(trimap == 128, 255, trimap).astype(np.uint8)
    with Matte(NOBODY, timeout=0.1) as matte:
        alpha = matte.alpha(image, known)
    np.testing.assert_array_equal(alpha, known)
    assert alpha is not known


def test_connection_is_kept(launch_standin, picture):
    server = launch_standin()
    port = int(server.grpc_url.rpartition(":")[2])

    def connections():
        # Columns: number, local address, remote address, state (01 is established)
        text = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        rows = [line.split() for line in text.splitlines()]
        return {row[1] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}

    with Matte(server.grpc_url) as matte:
        matte.alpha(*picture)
        first = connections()
        for _ in range(5):
            matte.alpha(*picture)
        assert connections() == first
        assert len(first) == 1


def test_threads_share_one_object(standin, make_picture, expected_alpha):
    pictures = [make_picture(20, 30, seed) for seed in range(40)]
    with Matte(standin.grpc_url) as matte, ThreadPoolExecutor(8) as pool:
        alphas = list(pool.map(lambda picture: matte.alpha(*picture), pictures))
    for picture, alpha in zip(pictures, alphas, strict=True):
        np.testing.assert_array_equal(alpha, expected_alpha(*picture))


def test_several_servers_share_the_work(standin, launch_standin, picture, count_requests):
    other = launch_standin()
    before = count_requests(standin.grpc_url)
    with Matte([standin.grpc_url, NOBODY, other.grpc_url]) as matte:
        for _ in range(20):
            matte.alpha(*picture)
    shares = count_requests(standin.grpc_url) - before, count_requests(other.grpc_url)
    assert sum(shares) == 20
    assert min(shares) >= 5  # they take turns; the first requests may find only one connected


def test_server_down(picture):
    with Matte(NOBODY, timeout=0.5) as matte:
        assert not matte.is_ready()
        with pytest.raises(ServerUnavailableError, match=f"no server at {NOBODY} for 0.5 s"):
            matte.alpha(*picture)


def test_one_ready_server_is_enough(standin, launch_standin):
    other = launch_standin(name="other")
    with Matte([other.grpc_url, NOBODY, standin.grpc_url]) as matte:
        for _ in range(4):
            assert matte.is_ready()
            matte.wait_until_ready(30)
    with Matte([other.grpc_url, NOBODY]) as matte:
        assert not matte.is_ready()


def test_wait_until_ready(standin, launch_standin):
    with Matte(standin.grpc_url) as matte:
        matte.wait_until_ready(30)
    with (
        Matte(NOBODY) as matte,
        pytest.raises(ServerUnavailableError, match=f"no server at {NOBODY} for 0.5 s"),
    ):
        matte.wait_until_ready(0.5)
    with (
        Matte(launch_standin(name="other").grpc_url) as matte,
        pytest.raises(ModelMissingError, match="does not serve the model 'dim'"),
    ):
        matte.wait_until_ready(30)


def test_server_that_comes_up_later_is_found(launch_standin, kill, picture, caplog, wait_until):
    """Until then its absence is told once, however many requests wait for it."""
    server = launch_standin()
    port = int(server.grpc_url.rpartition(":")[2])
    kill(server)
    with Matte(server.grpc_url, timeout=60) as matte, ThreadPoolExecutor() as pool:
        alphas = [pool.submit(matte.alpha, *picture) for _ in range(4)]
        wait_until(lambda: "trying again" in caplog.text)
        server = launch_standin(grpc_port=port)
        assert all(alpha.result().shape == picture[1].shape for alpha in alphas)
        assert matte.is_ready()
        assert caplog.text.count("trying again") == 1
        kill(server)
        pool.submit(matte.alpha, *picture)
        wait_until(lambda: caplog.text.count("trying again") == 2)
        matte.close()


def test_server_that_dies_half_way(launch_standin, kill, picture):
    server = launch_standin(seconds=60)
    with Matte(server.grpc_url, timeout=3) as matte, ThreadPoolExecutor() as pool:
        alpha = pool.submit(matte.alpha, *picture)
        time.sleep(0.5)  # the request is under way: the model takes a minute
        assert not alpha.done()
        kill(server)
        with pytest.raises(ServerUnavailableError, match="no server at"):
            alpha.result()


def test_no_answer_in_time(slow, picture):
    with (
        Matte(slow.grpc_url, timeout=0.5) as matte,
        pytest.raises(ServerTimeoutError, match=r"no answer from .* within 0\.5 s"),
    ):
        matte.alpha(*picture)


def test_closing_ends_requests(slow, picture):
    matte = Matte(slow.grpc_url)
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(matte.alpha, *picture)
        time.sleep(0.5)
        matte.close()
        with pytest.raises(ServerUnavailableError, match=CLOSED):
            under_way.result(timeout=5)
    for tile in ("off", 96):
        with pytest.raises(ServerUnavailableError, match=CLOSED):
            matte.alpha(*picture, tile)
    with pytest.raises(ServerUnavailableError, match=CLOSED):
        matte.wait_until_ready(1)
    assert not matte.is_ready()


class CancelledWhenSent(Request):
    """Another thread cancels it while the server answers for the first time."""

    def headers(self):
        self.cancel()
        return super().headers()


@pytest.mark.parametrize("options", [{}, {"tile": 96}, {"knn": True}])
def test_a_cancelled_request_ends(standin, asked, make_picture, options):
    with Matte(standin.grpc_url) as matte, pytest.raises(CancelledError):
        matte.alpha(*make_picture(96, 1000), request=CancelledWhenSent(), **options)
    assert asked() == 1


def test_closing_ends_waiting_for_a_server(picture):
    matte = Matte(NOBODY, timeout=60)
    threading.Timer(0.5, matte.close).start()
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=CLOSED):
        matte.alpha(*picture)
    assert time.monotonic() - started < 30  # far from the 60 s, whatever else the machine does


def test_model_missing(launch_standin, picture):
    server = launch_standin(name="other")
    with Matte(server.grpc_url) as matte:
        assert not matte.is_ready()
        with pytest.raises(ModelMissingError, match="does not serve the model 'dim'"):
            matte.alpha(*picture)


def test_model_of_another_contract(launch_standin, picture):
    server = launch_standin(image="picture")
    with (
        Matte(server.grpc_url) as matte,
        pytest.raises(ServerRefusedError, match="unexpected inference input 'image'"),
    ):
        matte.alpha(*picture)


def test_answer_that_is_no_alpha(launch_standin, picture):
    server = launch_standin(alpha_type="FP32")
    with (
        Matte(server.grpc_url) as matte,
        pytest.raises(ServerRefusedError, match=r"an alpha of float32 .*, expected uint8"),
    ):
        matte.alpha(*picture)


def test_servers_error_is_passed_on_and_the_request_not_repeated(
    launch_standin, picture, count_requests
):
    server = launch_standin(error="out of memory")
    with (
        Matte(server.grpc_url) as matte,
        pytest.raises(ServerRefusedError, match=r"refused request \w{32}: out of memory"),
    ):
        matte.alpha(*picture)
    assert count_requests(server.grpc_url) == 1


def test_http_port_is_unavailable_with_a_hint(standin, picture):
    with (
        Matte(standin.http_url, timeout=0.5) as matte,
        pytest.raises(ServerUnavailableError, match="give --url another server's gRPC port"),
    ):
        matte.alpha(*picture)
