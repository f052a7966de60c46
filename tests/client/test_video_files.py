"""Frames of video files: their colours, order and times; damage is found, and nothing lost."""

import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from client.video_files import TO_RGB, measure_video, read_video, write_video
from matting.images import ImageError

FRAMES, RATE = 11, 30


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(make_picture):
    return [make_picture(38, 52, seed)[0] for seed in range(FRAMES)]


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


def read(path):
    """A video's frames, of which there are as many as were measured."""
    with read_video(Path(path)) as (_, frames):
        read = [photo.pixels for photo, _ in frames]
    assert measure_video(Path(path)).frames == len(read)
    return read


def refusal(path, function=measure_video):
    with pytest.raises(ImageError) as refused:
        function(Path(path))
    return str(refused.value)


QUIET = {"x265-params": "log-level=none:lossless=1:bframes=0"}
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
def test_colours_are_as_the_video_says(codec, bits, weights, colours):
    """Down to the last rows: 36 is no multiple of the codecs' 16."""
    rgb = np.repeat(np.uint8(PATCHES)[None], 36, axis=0).repeat(16, axis=1)
    frame = in_yuv(rgb, *weights, bits, colours.get("color_range") == 2)
    options = {"qp": "0", "lossless": "1", **QUIET}
    encode("a.mkv", [frame, frame], codec, frame.format.name, options=options, **colours)
    middles = np.arange(8, rgb.shape[1], 16)
    found = read("a.mkv")[1]
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    levels = found[:, middles] / np.iinfo(found.dtype).max * 255
    assert np.abs(levels - rgb[:, middles]).max() <= (2 if bits == 8 else 0.5)


HLG = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 18}
PQ = {**HLG, "color_trc": 16}
WIDE = {"colorspace": 1, "color_range": 1, "color_primaries": 12, "color_trc": 1}
SDR = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}


@pytest.mark.parametrize(
    ("colours", "hdr", "declared"),
    [(HLG, "HLG", (9, 18)), (PQ, "PQ", (9, 16)), (WIDE, "", (12, 1)), (SDR, "", (2, 2))],
)
def test_what_is_written_has_the_videos_colours_and_bits(images, colours, hdr, declared):
    """HDR would look washed out if it did not say so; of BT.709 and 601 nothing is said."""
    frames = [in_yuv(image[:36], *BT2020, bits=10, full=False) for image in images]
    encode("a.mov", frames, "libx265", "yuv420p10le", options=QUIET, **colours)
    assert measure_video(Path("a.mov")).hdr == hdr
    with (
        read_video(Path("a.mov")) as (rate, frames),
        write_video(Path("b.mkv"), rate, Path("b.mkv")) as add,
    ):
        photos = [photo for photo, _ in frames]
        for number, (pixels, metadata) in enumerate(photos):
            transparent = np.dstack([pixels, np.full_like(pixels[..., 0], 65535)])
            add(transparent, number / rate, metadata)
    for frame, (pixels, _) in zip(decode("b.mkv"), photos, strict=True):
        assert (frame.color_primaries, frame.color_trc) == declared
        found = frame.to_ndarray(format="rgba64le").astype(int)
        assert np.abs(found[..., :3] - pixels).max() < 1 << 16 - 12
        assert (found[..., 3] == 65535).all()


def test_an_unknown_colour_space_is_told(images):
    frames = [in_yuv(image, *BT709, bits=8, full=False) for image in images]
    encode("a.mkv", frames, "libx264", "yuv420p", colorspace=8)
    error = refusal("a.mkv", read)
    assert error.startswith("a.mkv: its colours (yuv420p, colour space 8) cannot be converted")


def make_jpegs(kinds):
    """A motion JPEG of two frames each of some sizes and pixel formats; a ramp of greys."""
    with av.open("a.avi", "w") as container:
        stream = container.add_stream("mjpeg", RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj422p"
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


def test_a_pixel_format_that_changes():
    """As cameras' motion JPEGs do."""
    make_jpegs([(64, "yuvj422p"), (64, "yuvj420p")])
    assert len({frame.format.name for frame in decode("a.avi")}) == 2
    for pixels in read("a.avi"):
        assert np.abs(pixels[0, :, 1].astype(int) - np.linspace(0, 255, 64)).max() <= 8


def test_a_size_that_changes():
    make_jpegs([(64, "yuvj420p"), (32, "yuvj420p")])
    error = "a.avi: frame 3 is 32 x 48 pixels, the first frame is 64 x 48; expected"
    assert refusal("a.avi").startswith(error)


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
def test_damage_is_found(images, name, codec, pixel_format, fault, number):
    """The decoder stops, or makes something up and says so, or the file ends inside a frame."""
    encode(name, images, codec, pixel_format, options={"bf": "0", **QUIET})
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
    expected = name + r": is damaged in frame \d+ or soon after; to see more: ffmpeg "
    assert re.match(expected, refusal(name))


def test_a_clip_that_was_cut_out_of_another(images):
    """The first frames in its file refer to what was cut off, and are not shown."""
    options = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0"}
    encode("whole.mp4", images * 3, "libx264", "yuv420p", options=options)
    with av.open("whole.mp4") as whole:
        second = [n for n, packet in enumerate(whole.demux(video=0)) if packet.is_keyframe][1]
    copy("whole.mp4", "cut.mkv", but=range(second))
    shown = len(decode("cut.mkv"))
    assert 0 < shown < 3 * FRAMES - second
    assert len(read("cut.mkv")) == shown


def test_frames_before_the_start_of_an_edit_are_left_out():
    """They are in the file if it was cut without encoding it anew: it begins with a key frame."""
    greys = [np.full((38, 52, 3), 20 * number, np.uint8) for number in range(FRAMES)]
    encode("whole.mov", greys, "libx264", "yuv420p", options={"bf": "3", "qp": "0"})
    with av.open("whole.mov") as whole, av.open("cut.mov", "w") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        start = round(3.5 / RATE / stream.time_base)
        for packet in whole.demux(video=0):
            if packet.size:
                packet.pts -= start
                packet.dts -= start
                packet.stream = stream
                cut.mux(packet)
    assert [round(pixels.mean() / 20) for pixels in read("cut.mov")] == list(range(4, FRAMES))


def test_frames_too_close_for_a_mkv(images):
    encode("clip.mp4", images, "mjpeg", "yuvj420p")
    with av.open("clip.mp4") as slow, av.open("fast.mp4", "w") as fast:
        stream = fast.add_stream_from_template(slow.streams.video[0], time_base=Fraction(1, 2400))
        for number, packet in enumerate(slow.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = Fraction(1, 2400), stream
                fast.mux(packet)
    assert measure_video(Path("clip.mp4")) == (FRAMES, (52, 38), True, "")
    assert measure_video(Path("fast.mp4")) == (FRAMES, (52, 38), False, "")


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
    ],
)
def test_a_playlist_opens_no_other_video(images, playlist):
    encode("clip.mkv", images, "ffv1", "bgr0")
    Path("list.mp4").write_text(playlist.format("clip.mkv"))
    assert refusal("list.mp4").startswith("list.mp4: cannot be read as a video")


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_frames_come_in_the_order_in_which_they_are_shown(frames):
    """One that codecs change: with B-frames. A name may hold what FFmpeg takes for a protocol."""
    greys = [np.full((38, 52, 3), 20 * number, np.uint8) for number in range(frames)]
    encode("http:clip.mp4", greys, "libx264", "yuv420p", options={"bf": "3", "qp": "0"})
    assert [round(pixels.mean() / 20) for pixels in read("http:clip.mp4")] == list(range(frames))


def test_texts_of_old_programs_need_not_be_utf8(images):
    encode("clip.mkv", images, "ffv1", "bgr0")
    title = "Stra\xdfe".encode()
    copy("clip.mkv", "titled.mkv", title=title.decode())
    file = Path("titled.mkv").read_bytes()
    assert title in file
    Path("titled.mkv").write_bytes(file.replace(title, b"Stra\xdf\xdfe"))
    np.testing.assert_array_equal(read("titled.mkv"), images)


ONE = 1 << 16
TEN_DEGREES = 64540, 11380, -11380, 64540
TURNS = {0: TEN_DEGREES, 1: (0, -ONE, ONE, 0), 2: (-ONE, 0, 0, -ONE), 3: (0, ONE, -ONE, 0)}
"""Matrices of a file by how often a picture is turned to the left for them."""


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", TURNS)
def test_a_phones_video_is_turned_as_it_is_shown(images, turns, mirrored):
    encode("clip.mp4", images, "mpeg4", "yuv420p")
    stored = to_rgb(decode("clip.mp4"))
    frames = [np.rot90(frame[::-1] if mirrored else frame, turns) for frame in stored]
    file = bytearray(Path("clip.mp4").read_bytes())
    a, b, c, d = TURNS[turns]
    if mirrored:
        c, d = -c, -d
    place = file.index(b"tkhd") + 44
    struct.pack_into(">9i", file, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    Path("clip.mp4").write_bytes(file)
    np.testing.assert_array_equal(read("clip.mp4"), frames)
    assert measure_video(Path("clip.mp4")).sides == frames[0].shape[1::-1]


def test_frames_keep_their_times_and_lose_nothing(images):
    times = [1000, 1033, 1067, 1200, 1210, 1220, 1500, 2500, 2533, 9000, 9001]
    encode("varying.mkv", images, "ffv1", "bgr0", times=times)
    again = Path("again.mkv")
    with (
        read_video(Path("varying.mkv")) as (rate, frames),
        write_video(again, rate, again) as add,
    ):
        for (pixels, metadata), time in frames:
            add(pixels, time, metadata)
    assert [round(1000 * frame.time) for frame in decode(again)] == times
    np.testing.assert_array_equal(read(again), images)


def test_gigantic_frames_are_refused_by_the_header(images, monkeypatch):
    encode("clip.mkv", images, "ffv1", "bgr0")
    monkeypatch.setattr("matting.images.MAX_PIXELS", 52 * 38 - 1)
    assert refusal("clip.mkv").startswith("clip.mkv: its frames are 52 x 38 pixels; expected at")


def test_a_file_that_is_no_video():
    Path("a.mp4").write_text("no video at all")
    assert refusal("a.mp4").startswith("a.mp4: cannot be read as a video")


def test_an_unknown_codec(images):
    encode("a.avi", images, "mpeg4", "yuv420p")
    Path("a.avi").write_bytes(Path("a.avi").read_bytes().replace(b"FMP4", b"XQZW"))
    assert refusal("a.avi") == "a.avi: has no video stream that can be read"
