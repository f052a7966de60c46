"""A video and its trimaps in; every frame's alpha out, in order, all of them or none."""

import json
import os
import re
import signal
import stat
import struct
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

from client.video import DEFAULT_FPS, TO_RGB
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


def encode(path, frames, codec, pixel_format, rate=RATE, times=None, options=None, **colours):
    """Write frames, RGB or av's own, at times in milliseconds."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate, options=options, time_base=Fraction(1, 1000))
        for number, array in enumerate(frames):
            is_frame = isinstance(array, av.VideoFrame)
            frame = array if is_frame else av.VideoFrame.from_ndarray(array)
            if number == 0:
                stream.width, stream.height = frame.width, frame.height
                stream.pix_fmt = pixel_format
                for name, value in colours.items():
                    setattr(stream.codec_context, name, value)
            for name, value in colours.items():
                setattr(frame, name, value)
            frame.pts = times[number] if times else round(1000 * number / rate)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def copy(path, to, but=(), **metadata):
    """Copy a video's packets, all but those of some numbers."""
    with av.open(path) as old, av.open(to, "w") as new:
        new.metadata.update(metadata)
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number not in but:
                packet.stream = stream
                new.mux(packet)


def decode(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def to_rgb(frames):
    return [frame.to_ndarray(format="rgb24", interpolation=TO_RGB) for frame in frames]


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
    pictures = [make_picture(37, 53, seed) for seed in range(2)]
    encode("odd.mkv", [image for image, _ in pictures], "ffv1", "bgr0")
    Path("trimaps").mkdir()
    for number, (_, trimap) in enumerate(pictures):
        write_image(f"trimaps/{number}.png", trimap)
    code, _, err = run("odd.mkv", "--trimaps", "trimaps", "-o", "a.mkv", "--cutout", "c.mkv")
    assert code == 0, err
    made = zip(decode("c.mkv"), read_video("c.mkv"), read_video("a.mkv"), pictures, strict=True)
    for frame, colours, alpha, picture in made:
        pixels, expected = frame.to_ndarray(format="rgba"), expected_alpha(*picture)
        assert frame.format.name == "bgra"
        np.testing.assert_array_equal(pixels[..., 3], expected)
        np.testing.assert_array_equal(alpha[..., 0], expected)
        np.testing.assert_array_equal(pixels[..., :3], colours)
        np.testing.assert_array_equal(colours, estimate_foreground(picture[0], expected))


QUIET = {"x265-params": "log-level=none:lossless=1"}
PATCHES = [(0,) * 3, (64,) * 3, (192,) * 3, (255,) * 3, (0, 200, 0), (224, 160, 130), (30, 60, 200)]
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
"""What red and blue add to luma."""


def in_yuv(rgb, red, blue, bits, full):
    """RGB as a frame of 4:2:0, after the standards' own formulas."""
    r, g, b = np.moveaxis(rgb / 255, 2, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)]
    unit, most = 1 << bits - 8, (1 << bits) - 1
    smaller = [128 * unit + c[::2, ::2] * (most if full else 224 * unit) for c in chroma]
    planes = [y * most if full else (16 + 219 * y) * unit, *smaller]
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], "yuv420p" if bits == 8 else "yuv420p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        height, width = values.shape
        rows = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16).reshape(height, -1)
        rows[:, :width] = values.round().clip(0, most)
    return frame


@pytest.mark.parametrize(
    ("codec", "bits", "weights", "colours"),
    [
        ("libx264", 8, BT709, {"colorspace": 1, "color_range": 1}),
        ("libx264", 8, BT601, {"colorspace": 6, "color_range": 1}),
        ("libx264", 8, BT601, {}),
        ("libx264", 10, BT709, {"colorspace": 1, "color_range": 1}),
        ("libx264", 10, BT709, {"colorspace": 1, "color_range": 2}),
        ("libx265", 10, BT2020, {"colorspace": 9, "color_range": 2}),
        ("libvpx-vp9", 8, BT709, {"colorspace": 1, "color_range": 2}),
    ],
)
def test_colours_are_as_the_video_says(run, tmp_path, codec, bits, weights, colours):
    """Down to the last rows: 36 is no multiple of the codecs' 16."""
    rgb = np.repeat(np.uint8(PATCHES)[None], 36, axis=0).repeat(16, axis=1)
    frame = in_yuv(rgb, *weights, bits, colours.get("color_range") == 2)
    options = {"qp": "0", "lossless": "1", **QUIET}
    encode("a.mkv", [frame, frame], codec, frame.format.name, options=options, **colours)
    Path("trimaps").mkdir()
    for number in range(2):
        write_image(f"trimaps/{number}.png", np.full(rgb.shape[:2], 255, np.uint8))
    code, _, err = run("a.mkv", "--trimaps", "trimaps", "--cutout", "out")
    assert code == 0, err
    found = read_photo("out/000002.png").pixels.astype(int)
    middles = np.arange(8, rgb.shape[1], 16)
    assert np.abs(found[:, middles] - rgb[:, middles]).max() <= 2


def test_an_unknown_colour_space_is_told(refuse, clip):
    frames = [in_yuv(image, *BT709, bits=8, full=False) for image, _ in clip]
    encode("a.mkv", frames, "libx264", "yuv420p", colorspace=8)
    error = refuse("a.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "a.mkv: its colours (yuv420p, colour space 8) cannot be converted" in error


def make_jpegs(kinds):
    """A motion JPEG of two frames each of some sizes and pixel formats; a ramp of greys."""
    with av.open("a.avi", "w") as container:
        stream = container.add_stream("mjpeg", RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj422p"
        Path("trimaps").mkdir()
        for number, (width, pixel_format) in enumerate(kind for kind in kinds for _ in range(2)):
            ramp = np.tile(np.linspace(0, 255, width).astype(np.uint8), (48, 1))
            frame = av.VideoFrame.from_ndarray(np.dstack([ramp] * 3))
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, 48, pixel_format
            encoder.time_base = frame.time_base = Fraction(1, RATE)
            frame.pts = number
            for packet in encoder.encode(frame):
                packet.stream = stream
                container.mux(packet)
            write_image(f"trimaps/{number}.png", np.full((48, 64), 128, np.uint8))


def test_a_pixel_format_that_changes(run):
    """As cameras' motion JPEGs do."""
    make_jpegs([(64, "yuvj422p"), (64, "yuvj420p")])
    assert run("a.avi", "--trimaps", "trimaps", "-o", "a.mkv")[0] == 0
    assert len({frame.format.name for frame in decode("a.avi")}) == 2
    for alpha in read_video("a.mkv"):
        assert np.abs(alpha[0, :, 0].astype(int) - np.linspace(0, 255, 64)).max() <= 8


def test_a_size_that_changes(refuse, asked, tmp_path):
    make_jpegs([(64, "yuvj420p"), (32, "yuvj420p")])
    error = refuse("a.avi", "--trimaps", "trimaps", "-o", "a.mkv")
    assert "a.avi: frame 3 is 32 x 48 pixels, the first frame is 64 x 48; expected" in error
    assert asked() == 0


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "fault", "number"),
    [
        ("a.mp4", "libx264", "yuv420p", "zeros", 5),
        ("a.mov", "prores_ks", "yuv422p10le", "zeros", 5),
        ("a.mp4", "mpeg4", "yuv420p", "zeros", FRAMES - 1),
        ("a.avi", "mpeg4", "yuv420p", "cut", 5),
        ("a.mp4", "libx265", "yuv420p", "one is missing", 5),
    ],
)
def test_a_damaged_video_is_refused(refuse, asked, clip, name, codec, pixel_format, fault, number):
    """The decoder stops, or makes something up and says so, or the file ends inside a frame."""
    images, options = [image for image, _ in clip], {"bf": "0", **QUIET}
    encode(name, images, codec, pixel_format, options=options)
    with av.open(name) as whole:
        packet = list(whole.demux(video=0))[number]
    file, middle, end = Path(name), packet.pos + packet.size // 2, packet.pos + packet.size
    data = file.read_bytes()
    if fault == "zeros":
        file.write_bytes(data[:middle] + bytes(end - middle) + data[end:])
    elif fault == "cut":
        file.write_bytes(data[:middle])
    else:
        copy(file.rename("whole.mp4"), name, but=(number,))
    error = refuse(name, "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert re.search(name + r": is damaged in frame \d+ or soon after; to see more: ffmpeg ", error)
    assert asked() == 0


def test_a_clip_that_was_cut_out_of_another(run, clip):
    """The first frames in its file refer to what was cut off, and are not shown."""
    images = [image for image, _ in clip] * 3
    options = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0"}
    encode("whole.mp4", images, "libx264", "yuv420p", options=options)
    with av.open("whole.mp4") as whole:
        second = [n for n, packet in enumerate(whole.demux(video=0)) if packet.is_keyframe][1]
    copy("whole.mp4", "cut.mkv", but=range(second))
    shown = len(decode("cut.mkv"))
    assert 0 < shown < len(images) - second
    Path("unknown").mkdir()
    for number in range(shown):
        write_image(f"unknown/{number}.png", np.full(clip[0][1].shape, 128, np.uint8))
    assert run("cut.mkv", "--trimaps", "unknown", "-o", "alpha.mkv")[0] == 0
    assert len(decode("alpha.mkv")) == shown


def test_frames_too_close_for_a_mkv(refuse, clip):
    images = [image for image, _ in clip]
    encode("clip.mp4", images, "mjpeg", "yuvj420p")
    with av.open("clip.mp4") as slow, av.open("fast.mp4", "w") as fast:
        stream = fast.add_stream_from_template(slow.streams.video[0], time_base=Fraction(1, 2400))
        for number, packet in enumerate(slow.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = Fraction(1, 2400), stream
                fast.mux(packet)
    error = refuse("fast.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "fast.mp4: has frames less than a millisecond apart, which a .mkv cannot keep" in error


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
    ],
)
def test_a_playlist_opens_no_other_video(refuse, clip, playlist):
    Path("list.mp4").write_text(playlist.format("clip.mkv"))
    error = refuse("list.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv")
    assert "list.mp4: cannot be read as a video" in error


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


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_frames_come_in_the_order_in_which_they_are_shown(run, clip, frames):
    """One that codecs change: with B-frames. A name may hold what FFmpeg takes for a protocol."""
    greys = [np.full((38, 52, 3), 20 * number, np.uint8) for number in range(frames)]
    encode("http:clip.mp4", greys, "libx264", "yuv420p", options={"bf": "3", "qp": "0"})
    for number in range(FRAMES):
        Path(f"trimaps/{number:03}.png").unlink()
    for number in range(frames):
        write_image(f"trimaps/{number}.png", np.full((38, 52), 128, np.uint8))
    assert run("http:clip.mp4", "--trimaps", "trimaps", "-o", "alpha.mkv")[0] == 0
    found = [round(frame.mean() / 20) for frame in to_rgb(decode("alpha.mkv"))]
    assert found == list(range(frames))


def test_texts_of_old_programs_need_not_be_utf8(run, clip):
    title = "Stra\xdfe".encode()
    copy("clip.mkv", "titled.mkv", title=title.decode())
    file = Path("titled.mkv").read_bytes()
    assert title in file
    Path("titled.mkv").write_bytes(file.replace(title, b"Stra\xdf\xdfe"))
    assert run("titled.mkv", "--trimaps", "trimaps", "-o", "alpha.mkv")[0] == 0


ONE = 1 << 16
TURNS = {1: (0, -ONE, ONE, 0), 2: (-ONE, 0, 0, -ONE), 3: (0, ONE, -ONE, 0)}
"""Matrices of a file by how often they turn a picture to the left."""


@pytest.mark.parametrize("turns", TURNS)
def test_a_phones_video_is_turned_as_it_is_shown(run, clip, tmp_path, expected_alpha, turns):
    make_mp4(tmp_path, clip)
    frames = [np.rot90(frame, turns) for frame in to_rgb(decode("clip.mp4"))]
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


def test_frames_keep_their_times(run, clip):
    times = [1000, 1033, 1067, 1200, 1210, 1220, 1500, 2500, 2533, 9000, 9001]
    encode("varying.mkv", [image for image, _ in clip], "ffv1", "bgr0", times=times)
    outputs = ["-o", "alpha.mkv", "--cutout", "cutout.mkv"]
    assert run("varying.mkv", "--trimaps", "trimaps", *outputs)[0] == 0
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


def test_a_file_that_is_no_video(refuse, tmp_path):
    (tmp_path / "a.mp4").write_text("no video at all")
    assert "cannot be read as a video" in refuse("a.mp4", "--trimaps", ".", "-o", "a.mkv")


def test_an_unknown_codec(refuse, clip):
    encode("a.avi", [image for image, _ in clip], "mpeg4", "yuv420p")
    Path("a.avi").write_bytes(Path("a.avi").read_bytes().replace(b"FMP4", b"XQZW"))
    error = refuse("a.avi", "--trimaps", "trimaps", "-o", "a.mkv")
    assert "a.avi: has no video stream that can be read" in error


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
