"""A video and its trimaps in; every frame's alpha out, in order, all of them or none."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import ImageCms

from client.video_files import DEFAULT_FPS, Measured, write_video
from matting.compositing import composite
from matting.foreground import estimate_foreground
from matting.images import read_cutout, read_gray, read_photo, write_image
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
    (folder / "trimaps").mkdir()
    clip = folder / "clip.mkv"
    with write_video(clip, Fraction(RATE), clip) as add:
        for number, (image, trimap) in enumerate(pictures):
            add(image, number / RATE, Metadata())
            write_image(folder / "trimaps" / f"{number:03}.png", trimap)
    return pictures


def decode(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


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


def test_masks_of_zeros_and_ones_are_refused(refuse, clip, asked):
    for number in range(FRAMES):
        write_image(f"trimaps/{number:03}.png", np.eye(38, 52, dtype=np.uint8))
    error = refuse("clip.mkv", "--trimaps", "trimaps", "--mask", "-o", "alpha.mkv")
    assert "trimaps: the mask's brightest value is 1; expected black (0)" in error
    assert asked() == 0


def test_masks_that_are_taken_for_trimaps_are_told(run, clip):
    for number in range(FRAMES):
        write_image(f"trimaps/{number:03}.png", np.eye(38, 52, dtype=np.uint8) * 255)
    code, out, _ = run("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert (code, out) == (
        0,
        f"wrote alpha.mkv, {FRAMES} frames\n"
        f"trimaps without unknown pixels, used as alphas: {FRAMES} (if they are masks: --mask)\n",
    )
    code, out, _ = run("clip.mkv", "--trimaps", "trimaps", "-o", "again.mkv", "--mask")
    assert (code, out) == (0, f"wrote again.mkv, {FRAMES} frames\n")


def test_a_videos_cutouts_keep_colours_and_alphas(run, tmp_path, make_picture, expected_alpha):
    """Of odd sides, too."""
    pictures = make_clip(tmp_path, [make_picture(37, 53, seed) for seed in range(2)])
    code, _, err = run("clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv", "--cutout", "c.mkv")
    assert code == 0, err
    made = zip(decode("c.mkv"), read_video("c.mkv"), read_video("a.mkv"), pictures, strict=True)
    for frame, colours, alpha, picture in made:
        pixels, expected = frame.to_ndarray(format="rgba"), expected_alpha(*picture)
        assert frame.format.name == "bgra"
        np.testing.assert_array_equal(pixels[..., 3], expected)
        np.testing.assert_array_equal(alpha[..., 0], expected)
        np.testing.assert_array_equal(pixels[..., :3], colours)
        np.testing.assert_array_equal(colours, estimate_foreground(picture[0], expected))


def make_mp4(clip):
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    video = cv2.VideoWriter("clip.mp4", codec, RATE, (52, 38))
    for image, _ in clip:
        video.write(image)
    video.release()


def test_a_damaged_video_is_refused_before_the_work(refuse, asked, clip):
    make_mp4(clip)
    data = bytearray(Path("clip.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    Path("clip.mp4").write_bytes(data)
    error = refuse("clip.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert re.search(r"clip\.mp4: is damaged in frame \d+ or soon after", error)
    assert asked() == 0


def make_hlg(pictures):
    """The clip as a phone records it."""
    with av.open("hlg.mov", "w") as container:
        stream = container.add_stream("libx265", RATE, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 52, 38, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 18
        for image, _ in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())


def test_hdr_cutouts_keep_it_and_composites_are_refused(run, refuse, clip, asked):
    make_hlg(clip)
    outputs = ["-o", "alphas", "--cutout", "cutouts"]
    code, _, err = run("hlg.mov", "--trimaps", "trimaps", *outputs)
    assert code == 0, err
    assert read_photo("alphas/000001.png").metadata.cicp == b""
    cutout = read_photo("cutouts/000001.png")
    assert cutout.metadata.cicp == bytes([9, 18, 0, 1])
    assert cutout.pixels.dtype == np.uint16
    before = asked()
    composite = ["--composite", "new.mkv", "--background", "#fff"]
    error = refuse("hlg.mov", "--trimaps", "trimaps", *composite)
    assert "hlg.mov: is HDR (HLG), a background is not; make a --cutout, or convert" in error
    error = refuse("cutouts", "--trimaps", "trimaps", *composite)
    assert "cutouts: is HDR (HLG)" in error
    trimap = min(Path("trimaps").iterdir())
    error = refuse("cutouts/000001.png", trimap, "--composite", "new.png", "--background", "#fff")
    assert "cutouts/000001.png: is HDR (HLG)" in error
    assert asked() == before


def test_frames_too_close_for_a_mkv(refuse, clip, monkeypatch):
    close = Measured(FRAMES, (52, 38), are_apart=False, hdr="")
    monkeypatch.setattr("client.video.measure_video", lambda path: close)
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "clip.mkv: has frames less than a millisecond apart, which a .mkv cannot keep" in error


def test_videos_of_other_formats(run, clip):
    make_mp4(clip)
    code, out, _ = run("clip.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv", "--json")
    assert code == 0
    assert len(read_video("alpha.mkv")) == FRAMES
    assert re.fullmatch(r"[0-9a-f]{32}", json.loads(out)["request"])


def test_frames_keep_their_times(run, clip):
    times = [1000, 1033, 1067, 1200, 1210, 1220, 1500, 2500, 2533, 9000, 9001]
    varying = Path("varying.mkv")
    with write_video(varying, Fraction(RATE), varying) as add:
        for (image, _), time in zip(clip, times, strict=True):
            add(image, time / 1000, Metadata())
    outputs = ["-o", "alpha.mkv", "--cutout", "cutout.mkv"]
    assert run(varying, "--trimaps", "trimaps", *outputs)[0] == 0
    for name in outputs[1::2]:
        assert [round(1000 * frame.time) for frame in decode(name)] == times


def test_a_gap_in_each_folder_is_found(refuse, asked, tmp_path, make_picture):
    for folder, kind, gap in (("frames", 0, 3), ("trimaps", 1, 5)):
        (tmp_path / folder).mkdir()
        for number in set(range(8)) - {gap}:
            write_image(f"{folder}/x264_{number + kind:03}.png", make_picture(38, 52)[kind])
    error = refuse("frames", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert (
        "frames/x264_004.png would be paired with trimaps/x264_004.png, but x264_000.png with"
        in error
    )
    assert asked() == 0


@pytest.mark.parametrize("rate", [None, 23.976])
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
    (frame,) = decode("new.mkv")
    lost = deep - frame.to_ndarray(format="rgb48le").astype(int)
    assert np.abs(lost).max() < 1 << 16 - 12


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


def test_trimaps_of_another_size_are_found_before_the_work(refuse, clip, asked):
    write_image("trimaps/007.png", np.full((20, 20), 128, np.uint8))
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv", "--cutout", "frames")
    assert "clip.mkv is 52 x 38 but trimaps/007.png is 20 x 20" in error
    assert asked() == 0


def test_a_bad_frame_leaves_nothing(refuse, clip):
    write_image("trimaps/007.png", clip[7][0][..., 0])
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv", "--cutout", "frames")
    assert "trimaps/007.png: looks like an alpha matte or a photo" in error


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
    assert "new.mkv: is used already by this command" in error


def test_a_trimap_folder_that_cannot_be_listed(refuse, clip, close_folder):
    close_folder("trimaps")
    error = refuse("clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv")
    assert error == "error: trimaps: cannot be listed (Permission denied)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mkv", "trimaps/000.png", "-o", "a.mkv"], "give its frames' trimaps"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "a.mp4"], "a.mp4: expected a .mkv or"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "."], "exists already"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "no/a.mkv"], "create it first"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "/proc/a.mkv"], "/proc/a.mkv: cannot be writ"),
        (["clip.ts", "--trimaps", "trimaps", "-o", "a.mkv"], "a video (.mp4, .m4v, .mov, .mkv, "),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "clip.mkv"], "is used already by this"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "a", "--failures", "f.csv"], "written whole"),
        (["clip.mkv", "--trimaps", "trimaps", "-o", "a.mkv", "--fps", "9"], "--fps is only for"),
        (["trimaps/*.png", "--trimaps", "trimaps", "-o", "a.mkv"], "made from a folder of frames"),
        (["empty", "--trimaps", "trimaps", "-o", "a.mkv"], "no frames in empty"),
        (["clip.mkv", "--trimaps", "trimap", "-o", "a.mkv"], "--trimaps trimap is not a folder"),
        (["gone.mkv", "--trimaps", "trimaps", "-o", "a.mkv"], "gone.mkv: no such file"),
    ],
)
def test_refusals(refuse, clip, arguments, message):
    Path("empty").mkdir()
    assert message in refuse(*arguments)


@pytest.mark.parametrize("rate", ["inf", "nan", "1e30", "1001", "0.009", "0", "-1", "soon"])
def test_rates_that_no_video_can_have(refuse, clip, rate):
    error = refuse("trimaps", "--trimaps", "trimaps", "-o", "a.mkv", f"--fps={rate}")
    assert f"{rate} is not a number from 0.01 to 1000" in error


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
