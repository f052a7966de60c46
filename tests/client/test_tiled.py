"""Photos sent as tiles to real Triton servers: what is sent, and what comes back."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from client.connection import Matte
from client.errors import ServerRefusedError, TooLargeError
from client.tiles import join_tiles, plan_tiles


@pytest.fixture
def spot(make_picture):
    """A photo with a small unknown spot, away from its borders."""
    image, _ = make_picture(700, 900)
    trimap = np.zeros((700, 900), np.uint8)
    trimap[300:350, 400:470] = 128
    return image, trimap


@pytest.mark.parametrize("tile", [96, 128, 256])
def test_tiles_join_to_what_the_whole_photo_gives(
    standin, asked, make_picture, expected_alpha, tile
):
    image, trimap = make_picture(300, 407)
    with Matte(standin.grpc_url) as matte:
        alpha = matte.alpha(image, trimap, tile)
    np.testing.assert_array_equal(alpha, expected_alpha(image, trimap))
    assert asked() == len(plan_tiles(trimap, tile)) > 1


def test_tiles_that_disagree_are_joined_the_same_way_however_they_come_back(
    launch_standin, make_picture
):
    image, trimap = make_picture(400, 500)
    urls = [launch_standin(answer="mean").grpc_url, launch_standin(answer="mean").grpc_url]
    tiles = plan_tiles(trimap, 128)
    greens = (tile.cut(image)[..., 1] for tile in tiles)
    means = [np.full(green.shape, green.mean().round(), np.uint8) for green in greens]
    expected = join_tiles(trimap, tiles, means)
    for servers in (urls[0], urls):
        with Matte(servers) as matte:
            np.testing.assert_array_equal(matte.alpha(image, trimap, 128), expected)


def test_auto_makes_tiles_where_they_are_less_work(standin, asked, spot, expected_alpha):
    with Matte(standin.grpc_url) as matte:
        np.testing.assert_array_equal(matte.alpha(*spot), expected_alpha(*spot))
    assert asked() == len(plan_tiles(spot[1])) == 1


def test_auto_sends_whole_what_tiles_would_not_make_less(standin, asked):
    image, trimap = np.zeros((600, 800, 3), np.uint8), np.full((600, 800), 128, np.uint8)
    trimap[:100] = 0  # leaves 0.86 of the photo
    with Matte(standin.grpc_url) as matte:
        np.testing.assert_array_equal(matte.alpha(image, trimap), np.zeros((600, 800)))
    assert asked() == 1


def test_auto_sends_small_photos_whole(launch_standin, spot):
    server = launch_standin(answer="mean")  # of what it was sent
    image, trimap = (pixels[200:500, 200:700] for pixels in spot)
    with Matte(server.grpc_url) as matte:
        alpha = matte.alpha(image, trimap)
    assert (alpha[trimap == 128] == image[..., 1].mean().round()).all()


def test_auto_makes_smaller_tiles_of_what_is_too_large_for_the_server(
    launch_standin, make_picture, expected_alpha, count_requests
):
    server = launch_standin(max_pixels=256**2)
    for shape in ((300, 400), (700, 900)):  # whole, and in larger tiles at first
        image, trimap = make_picture(*shape)
        with Matte(server.grpc_url) as matte:
            with pytest.raises(TooLargeError, match="takes at most"):
                matte.alpha(image, trimap, "off")
            np.testing.assert_array_equal(matte.alpha(image, trimap), expected_alpha(image, trimap))

    before = count_requests(server.grpc_url)
    image = np.zeros((400, 400, 3), np.uint8)
    trimap = np.zeros((400, 400), np.uint8)
    trimap[:30] = 128
    with Matte(server.grpc_url) as matte:
        matte.alpha(image, trimap)  # whole, since it is small; then in the usual tiles
    assert count_requests(server.grpc_url) - before == 1 + len(plan_tiles(trimap)) == 2


@pytest.mark.parametrize("model", [{"alpha_type": "FP32"}, {"error": "the network failed"}])
def test_auto_does_not_repeat_what_failed_for_another_reason(
    launch_standin, make_picture, count_requests, model
):
    server = launch_standin(**model)
    with Matte(server.grpc_url) as matte, pytest.raises(ServerRefusedError):
        matte.alpha(*make_picture(300, 400))
    assert count_requests(server.grpc_url) == 1


def test_auto_does_not_even_ask_for_the_largest_photos_whole(standin, asked, monkeypatch):
    monkeypatch.setattr("client.tiles.LARGEST_WHOLE", 320 * 1216 - 1)  # padded it is more
    image, trimap = np.zeros((300, 1200, 3), np.uint8), np.full((300, 1200), 128, np.uint8)
    with Matte(standin.grpc_url) as matte:
        matte.alpha(image, trimap)
    assert asked() == len(plan_tiles(trimap)) > 1


def test_off_sends_the_photo_whole(standin, asked, make_picture):
    with Matte(standin.grpc_url) as matte:
        matte.alpha(*make_picture(300, 400), "off")
    assert asked() == 1


@pytest.mark.parametrize("servers", [1, 2])
def test_of_one_photo_as_many_tiles_are_under_way_as_there_are_servers(
    launch_standin, make_picture, servers, monkeypatch
):
    urls = [launch_standin(seconds=0.02).grpc_url for _ in range(servers)]
    under_way, counts, lock = 0, [], threading.Lock()
    image, trimap = make_picture(300, 407)
    with Matte(urls) as matte:
        infer = matte._client.infer

        def count(*arguments, **options):
            nonlocal under_way
            with lock:
                under_way += 1
                counts.append(under_way)
            try:
                return infer(*arguments, **options)
            finally:
                with lock:
                    under_way -= 1

        monkeypatch.setattr(matte._client, "infer", count)
        matte.alpha(image, trimap, 96)
        assert len(counts) == len(plan_tiles(trimap, 96)) > 10
        assert max(counts) == servers


def test_after_a_tile_failed_the_rest_is_not_asked_for(
    launch_standin, make_picture, count_requests
):
    server = launch_standin(error="out of memory", seconds=0.05)
    image, trimap = make_picture(900, 900)
    with (
        Matte(server.grpc_url) as matte,
        pytest.raises(ServerRefusedError, match=r"refused request \w{32}: out of memory"),
    ):
        matte.alpha(image, trimap, 96)
    assert count_requests(server.grpc_url) < len(plan_tiles(trimap, 96)) / 2


@pytest.mark.parametrize("tile", [100, 64, 0])
def test_impossible_tiles_are_refused(standin, make_picture, tile):
    image, trimap = make_picture(300, 400)
    with (
        Matte(standin.grpc_url) as matte,
        pytest.raises(ValueError, match=f"tile of {tile}: expected"),
    ):
        matte.alpha(image, trimap, tile)


LARGE = """
import re, sys
from pathlib import Path
import numpy as np
from client.connection import Matte
image = np.full((6000, 8000, 3), 77, np.uint8)
trimap = np.zeros((6000, 8000), np.uint8)
trimap[2000:2400, 3000:3500] = 128
with Matte(sys.argv[1]) as matte:
    alpha = matte.alpha(image, trimap)
assert (alpha[2000:2400, 3000:3500] == 77).all()
assert np.count_nonzero(alpha) == 400 * 500
# Not getrusage: that is no less than the peak of the process that started this one.
print(re.search("VmHWM:\\s*(.*) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_memory_for_48_megapixels_is_bounded(standin, asked):
    command = [sys.executable, "-c", LARGE, standin.grpc_url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Photo, trimap, alpha and the trimap's unknown pixels are 288 MB, libraries about 100.
    assert int(done.stdout) / 1024 < 500
    assert asked() < 12
