"""A video and its trimaps in; every frame's alpha out, in order, all of them or none."""

import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ImageCms

from client.job import Pair
from client.video import DEFAULT_FPS, _are_steady, list_frames
from matting.compositing import composite
from matting.foreground import estimate_foreground
from matting.images import read_cutout, read_gray, read_photo, to_depth, write_image
from matting.knn import knn_alpha
from matting.metadata import Metadata
from matting.trimaps import MASK_BAND, trimap_from_mask

FRAMES, RATE = 11, 30
SCRIPT = Path(__file__).parents[2] / "client" / "matte.py"


@pytest.fixture
def clip(tmp_path, make_picture):
    """A clip without loss in tmp_path, and its trimaps; its images and trimaps."""
    return make_clip(tmp_path, [make_picture(38, 52, seed) for seed in range(FRAMES)])


def make_clip(folder, pictures):
    height, width = pictures[0][1].shape
    codec = cv2.VideoWriter.fourcc(*"FFV1")
    video = cv2.VideoWriter(str(folder / "clip.mkv"), codec, RATE, (width, height))
    (folder / "trimaps").mkdir()
    for number, (image, trimap) in enumerate(pictures):
        video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        write_image(folder / "trimaps" / f"{number:03}.png", trimap)
    video.release()
    return pictures


def read_video(path, rate=RATE):
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate)
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


@pytest.mark.parametrize(("views", "knn"), [(1, False), (2, False), (1, True)])
def test_alpha_video(run, clip, expected_alpha, asked, views, knn):
    options = ["--jobs", 3, "--views", views, *(["--knn"] * knn)]
    code, out, err = run("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv", *options)
    assert (code, out) == (0, f"wrote alpha.mkv, {FRAMES} frames\n"), err
    assert asked() == views * FRAMES
    frames = read_video("alpha.mkv")
    assert len(frames) == FRAMES
    for frame, picture in zip(frames, clip, strict=True):
        alpha = expected_alpha(*picture)
        alpha = knn_alpha(*picture, alpha) if knn else alpha
        np.testing.assert_array_equal(frame, np.dstack([alpha] * 3))


def test_frames_and_composite_video(run, clip, expected_alpha, tmp_path):
    code, _, err = run(
        *["clip.mkv", "--trimaps", "trimaps", "-o", "alphas", "--cutout", "cutouts"],
        *["--composite", "new.mkv", "--background", "#204060", "--quiet"],
    )
    assert (code, err) == (0, "")
    names = [f"{number:06}.png" for number in range(1, FRAMES + 1)]
    assert sorted(path.name for path in (tmp_path / "alphas").iterdir()) == names
    for name, frame, (image, trimap) in zip(names, read_video("new.mkv"), clip, strict=True):
        alpha = expected_alpha(image, trimap)
        foreground = estimate_foreground(image, alpha)
        np.testing.assert_array_equal(read_gray(Path("alphas", name)), alpha)
        np.testing.assert_array_equal(read_cutout(Path("cutouts", name))[0], foreground)
        background = np.full_like(image, (0x20, 0x40, 0x60))
        np.testing.assert_array_equal(frame, composite(alpha, foreground, background))


def test_masks_in_frames_without_the_object_too(run, clip, expected_alpha):
    masks = [np.zeros((38, 52), np.uint8) for _ in range(FRAMES)]
    for number in range(3, 8):
        fading = 255 - 30 * (number - 3)
        cv2.circle(masks[number], (10 + 3 * number, 18), 8, fading, cv2.FILLED)
    for number, mask in enumerate(masks):
        write_image(f"trimaps/{number:03}.png", mask)
    code, out, _ = run("clip.mkv", "--trimaps", "trimaps", "--mask", "-o", "alpha.mkv", "--json")
    assert code == 0
    assert json.loads(out)["status"] == "written"
    for frame, (image, _), mask in zip(read_video("alpha.mkv"), clip, masks, strict=True):
        trimap = trimap_from_mask(mask, MASK_BAND, MASK_BAND)
        np.testing.assert_array_equal(frame[..., 0], expected_alpha(image, trimap))


def test_masks_that_are_taken_for_trimaps_are_told(run, clip):
    for number in range(FRAMES):
        write_image(f"trimaps/{number:03}.png", np.eye(38, 52, dtype=np.uint8) * 255)
    code, out, _ = run("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert (code, out) == (
        0,
        f"wrote alpha.mkv, {FRAMES} frames\n"
        f"trimaps without unknown pixels: {FRAMES}; taken as the alphas (for masks: --mask)\n",
    )
    code, out, _ = run("clip.mkv", "--trimaps", "trimaps", "-o", "again.mkv", "--mask")
    assert (code, out) == (0, f"wrote again.mkv, {FRAMES} frames\n")


def make_mp4(folder, clip):
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    video = cv2.VideoWriter(str(folder / "clip.mp4"), codec, RATE, (52, 38))
    for image, _ in clip:
        video.write(image)
    video.release()


def test_videos_of_other_formats(run, clip, tmp_path):
    make_mp4(tmp_path, clip)
    code, out, _ = run("clip.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv", "--json")
    assert code == 0
    assert len(read_video("alpha.mkv")) == FRAMES
    assert re.fullmatch(r"[0-9a-f]{32}", json.loads(out)["request"])


ONE = 1 << 16
TURNS = {1: (0, -ONE, ONE, 0), 2: (-ONE, 0, 0, -ONE), 3: (0, ONE, -ONE, 0)}
"""Matrices of a file by how often they turn a picture to the left."""


@pytest.mark.parametrize("turns", TURNS)
def test_a_phones_video_is_turned_as_it_is_shown(run, clip, tmp_path, expected_alpha, turns):
    make_mp4(tmp_path, clip)
    frames = [np.rot90(frame, turns) for frame in read_video("clip.mp4")]
    file = bytearray(Path("clip.mp4").read_bytes())
    a, b, c, d = TURNS[turns]
    place = file.index(b"tkhd") + 44
    struct.pack_into(">9i", file, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    Path("clip.mp4").write_bytes(file)
    for number, (_, trimap) in enumerate(clip):
        write_image(f"trimaps/{number:03}.png", np.ascontiguousarray(np.rot90(trimap, turns)))
    code, _, err = run("clip.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert code == 0, err
    for made, frame, (_, trimap) in zip(read_video("alpha.mkv"), frames, clip, strict=True):
        np.testing.assert_array_equal(made[..., 0], expected_alpha(frame, np.rot90(trimap, turns)))


def test_frames_at_varying_times_go_as_frames_only(run, refuse, clip):
    """A .mkv has one rate, and would drift from the video that it belongs to."""
    file = Path("clip.mkv").read_bytes()
    for number in reversed(range(5, FRAMES)):  # a camera left one out for want of light
        block, late = (
            b"\x81" + struct.pack(">hB", round(1000 * moment / RATE), 0)
            for moment in (number, number + 1)
        )
        assert file.count(block) == 1
        file = file.replace(block, late)
    Path("clip.mkv").write_bytes(file)
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "clip.mkv: its frame rate varies" in error
    assert "name a folder for frames" in error
    assert run("clip.mkv", "--trimaps", "trimaps", "-o", "frames")[0] == 0


@pytest.mark.parametrize("rate", [0.01, 24000 / 1001, 29.97, 30000 / 1001, 12.345, 1000])
@pytest.mark.parametrize("kind", [("clip.mkv", "FFV1"), ("clip.mp4", "mp4v"), ("clip.avi", "MJPG")])
def test_frames_at_a_constant_rate_are_steady(tmp_path, rate, kind):
    path, codec = tmp_path / kind[0], cv2.VideoWriter.fourcc(*kind[1])
    video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, (16, 16))
    for _ in range(200):
        video.write(np.zeros((16, 16, 3), np.uint8))
    video.release()
    trimaps = tmp_path / "trimaps"
    trimaps.mkdir()
    for number in range(200):
        (trimaps / f"{number}.png").touch()
    assert len(list_frames(Pair(path, trimaps, {"alpha": tmp_path / "alpha.mkv"}))) == 200


@pytest.mark.parametrize(
    ("times", "rate", "is_steady"),
    [
        ([500 + 1000 * n / 29.97 for n in range(9000)], 29.97, True),  # begins late
        ([round(1000 * n / 59.94) for n in range(9000)], 59.94, True),  # Matroska's rounding
        ([*(40.0 * n for n in range(98)), 0, 0], 25, True),  # an .avi with B-frames ends so
        ([0.0] * 100, 25, True),  # a stream without times
        ([40.0 * n + 10 * (n % 2) for n in range(100)], 25, True),  # jitter
        ([40.0 * (n + (n > 50)) for n in range(100)], 25, False),  # one is left out
        ([1000 * n / 24 for n in range(100)], 25, False),  # the rate is another
    ],
)
def test_what_is_steady(times, rate, is_steady):
    assert _are_steady(times, rate) == is_steady


@pytest.mark.parametrize("rate", [None, 12])
def test_frames_and_trimaps_by_their_numbers(run, tmp_path, make_picture, expected_alpha, rate):
    pictures = [make_picture(38, 52, seed) for seed in range(12)]
    for folder, kind in (("frames", 0), ("trimaps", 1)):
        (tmp_path / folder).mkdir()
        for number, picture in enumerate(pictures, start=1):
            write_image(f"{folder}/{number}.png", picture[kind])
    options = ["--fps", rate] if rate else []
    code, out, err = run("frames", "--trimaps", "trimaps", "-o", "alpha.mkv", *options)
    assert (code, out) == (0, "wrote alpha.mkv, 12 frames\n"), err
    frames = read_video("alpha.mkv", rate or DEFAULT_FPS)
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame[..., 0], expected_alpha(*picture))


def test_frames_keep_16_bits_and_profile_beside_a_video(run, tmp_path, make_picture):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image, trimap = make_picture(38, 52)
    deep = image * np.uint16(257) - image
    for folder in ("frames", "trimaps"):
        (tmp_path / folder).mkdir()
    write_image("frames/1.png", deep, Metadata(icc=profile))
    write_image("trimaps/1.png", np.full_like(trimap, 255))
    outputs = ["-o", "alpha.mkv", "--cutout", "cutouts", "--composite", "new.mkv"]
    code, _, err = run("frames", "--trimaps", "trimaps", *outputs, "--background", "#fff")
    assert code == 0, err
    cutout = read_photo("cutouts/000001.png")
    np.testing.assert_array_equal(cutout.pixels, deep)
    assert cutout.metadata.icc == profile
    np.testing.assert_array_equal(read_video("new.mkv", DEFAULT_FPS)[0], to_depth(deep, np.uint8))


def test_trimaps_of_a_video_by_their_numbers(run, clip, expected_alpha):
    pictures = [(image, np.full_like(trimap, 128)) for image, trimap in clip]
    for number, (_, trimap) in enumerate(pictures):
        trimap[:number] = 255
        write_image(f"trimaps/{number}.png", trimap)
        Path(f"trimaps/{number:03}.png").unlink()
    assert run("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")[0] == 0
    for frame, picture in zip(read_video("alpha.mkv"), pictures, strict=True):
        np.testing.assert_array_equal(frame[..., 0], expected_alpha(*picture))


def test_a_replaced_video_keeps_its_mode(run, clip):
    Path("alpha.mkv").touch()
    Path("alpha.mkv").chmod(0o640)
    assert run("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")[0] == 0
    assert len(read_video("alpha.mkv")) == FRAMES
    assert stat.S_IMODE(Path("alpha.mkv").stat().st_mode) == 0o640


def test_a_link_to_a_name_without_suffix(run, clip):
    Path("alpha.mkv").symlink_to("alpha")
    assert run("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")[0] == 0
    assert Path("alpha.mkv").is_symlink()
    assert len(read_video("alpha")) == FRAMES


def test_frames_of_one_size_only(refuse, clip):
    Path("frames").mkdir()
    for number, (image, _) in enumerate(clip):
        write_image(f"frames/{number}.png", image[: 38 - 2 * (number == 3)])
    error = refuse("frames", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "3.png: is 52 x 36 pixels, the first frame is 52 x 38" in error


def test_gigantic_frames_are_refused_by_the_header(refuse, clip, monkeypatch):
    monkeypatch.setattr("matting.images.MAX_PIXELS", 52 * 38 - 1)
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "clip.mkv: its frames are 52 x 38 pixels; expected at most" in error


def test_a_bad_frame_leaves_nothing(refuse, clip):
    write_image("trimaps/007.png", np.full((20, 20), 128, np.uint8))
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv", "--cutout", "frames")
    assert "clip.mkv is 52 x 38 but trimaps/007.png is 20 x 20" in error


def test_another_number_of_trimaps(refuse, clip):
    Path("trimaps/003.png").unlink()
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "has 11 frames and trimaps 10 images; expected one for each" in error


@pytest.mark.parametrize("taken", ["trimaps/003.png", "clip.mkv", "back.png"])
def test_no_input_is_overwritten_through_a_link(refuse, clip, taken):
    write_image("back.png", clip[0][0])
    Path("new.mkv").symlink_to(taken)
    background = ["--background", "back.png"]
    error = refuse("clip.mkv", "--trimaps", "trimaps", "--composite", "new.mkv", *background)
    assert "new.mkv: is another file of this command" in error


def test_a_writer_that_cannot_begin_is_told(refuse, clip, monkeypatch):
    monkeypatch.setattr("client.video.CODEC", cv2.VideoWriter.fourcc(*"none"))
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv")
    assert "a.mkv: cannot be written (FFmpeg cannot begin it)" in error


def test_a_trimap_folder_that_cannot_be_listed(refuse, clip, close_folder):
    close_folder("trimaps")
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv")
    assert error == "error: trimaps: cannot be listed (Permission denied)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mkv", "trimaps/000.png", "-o", "a.mkv"], "name its frames' trimaps"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "a.mp4"], "a.mp4: write a .mkv or"),
        (["clip.mkv", "--trimaps", "trimaps", "--cutout", "a.mkv"], "has no transparency"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "."], "exists already"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "no/a.mkv"], "create it first"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "clip.mkv"], "is another file of this"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "a", "--failures", "f.csv"], "written whole"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv", "--fps", "9"], "--fps is for a video"),
        (["trimaps/*.png", "--trimaps", "trimaps", "-o", "a.mkv"], "made from a folder of frames"),
        (["empty", "--trimaps", "trimaps", "-o", "a.mkv"], "no frames in empty"),
        (["gone.mkv", "--trimaps", "trimaps", "-o", "a.mkv"], "gone.mkv: no such file"),
    ],
)
def test_refusals(refuse, clip, arguments, message):
    Path("empty").mkdir()
    assert message in refuse(*arguments)


def test_odd_sides_go_as_frames_only(run, refuse, tmp_path, make_picture, clip):
    shutil.rmtree("trimaps")
    # OpenCV writes no odd sides: a motion JPEG made of whole pictures has them.
    image, trimap = make_picture(37, 53)
    stream = b"".join(cv2.imencode(".jpg", image)[1].tobytes() for _ in range(3))
    Path("odd.avi").write_bytes(stream)
    Path("trimaps").mkdir()
    for number in range(3):
        write_image(f"trimaps/{number}.png", trimap)
    assert "needs even sides" in refuse("odd.avi", "--trimaps", "trimaps", "-o", "a.mkv")
    assert run("odd.avi", "--trimaps", "trimaps", "-o", "frames")[0] == 0
    assert read_gray("frames/000003.png").shape == (37, 53)


@pytest.mark.parametrize("rate", ["inf", "nan", "1e30", "1001", "0.009", "0", "-1", "soon"])
def test_rates_that_no_video_can_have(refuse, clip, rate):
    error = refuse("trimaps", "--trimaps", "trimaps", "-o", "a.mkv", f"--fps={rate}")
    assert f"{rate} is not a number from 0.01 to 1000" in error


def test_a_video_that_claims_such_a_rate(run, refuse, clip, monkeypatch):
    monkeypatch.setattr("client.video.MAX_FPS", RATE - 1)
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv")
    assert f"clip.mkv: says it has {RATE} frames a second, expected 0.01 to {RATE - 1};" in error
    assert run("clip.mkv", "--trimaps", "trimaps", "-o", "frames")[0] == 0


def test_a_file_that_is_no_video(refuse, tmp_path):
    (tmp_path / "a.mp4").write_text("no video at all")
    assert "cannot be read as a video" in refuse("a.mp4", "--trimaps", ".", "-o", "a.mkv")


def test_ctrl_c_leaves_nothing(slow, clip, tmp_path):
    command = [sys.executable, SCRIPT, "clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    before = sorted(tmp_path.iterdir())
    process = subprocess.Popen(
        [*command, "--url", slow.grpc_url], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while sorted(tmp_path.iterdir()) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert sorted(tmp_path.iterdir()) == before
