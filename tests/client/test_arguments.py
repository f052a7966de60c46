"""What can be said on the command line can be said to the library, and the other way round."""

from inspect import signature

import pytest

from client.arguments import parse
from client.connection import Matte
from client.folder import Record, add_failure, matte_pairs
from client.job import OUTPUTS, Band, Options, Pair
from client.matte import _settings
from client.pairs import find_pairs
from client.tls import Tls
from client.video import matte_video

LIBRARY = {
    "image": (Pair, "image"),
    "trimap": (Pair, "trimap"),
    "trimaps": (find_pairs, "trimaps"),
    **dict.fromkeys(OUTPUTS, (Pair, "outputs")),
    "background": (Options, "background"),
    "premultiplied": (Options, "premultiplied"),
    "quantize": (Options, "quantize"),
    "mask": (Options, "mask"),
    "erode": (Band, "erode"),
    "dilate": (Band, "dilate"),
    "tile": (Options, "tile"),
    "views": (Options, "views"),
    "knn": (Options, "knn"),
    "half": (Options, "half"),
    "quiet": (Options, "show_progress"),
    "url": (Matte, "url"),
    "timeout": (Matte, "timeout"),
    "priority": (Matte, "priority"),
    "tls": (Matte, "tls"),
    "shm": (Matte, "shm"),
    "ca": (Tls, "ca"),
    "cert": (Tls, "certificate"),
    "key": (Tls, "key"),
    "jobs": (matte_pairs, "jobs"),
    "fps": (matte_video, "fps"),
    "failures": (add_failure, "path"),
    "json": (Record, "status"),
}


def test_every_option_is_in_the_library():
    assert vars(parse(["a.jpg", "b.png", "-o", "c.png"])).keys() == LIBRARY.keys()
    for function, name in LIBRARY.values():
        assert name in signature(function).parameters
    for name in ("pair", "trimaps", "jobs", "options"):
        assert name in signature(matte_video).parameters


@pytest.mark.parametrize("owner", [Matte, Tls, Options, Band])
def test_the_library_has_nothing_more(owner):
    said = {name for function, name in LIBRARY.values() if function is owner}
    assert signature(owner).parameters.keys() == said


def test_what_is_said_arrives(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    said = ["--composite", "e.png", "--background", "#102030", "--cutout", "d.png"]
    said += ["--premultiplied", "--mask", "--erode", "3", "--dilate", "4%"]
    said += ["--tile", "256", "--views", "4", "--knn", "--half"]
    found = _settings(parse(["a.jpg", "b.png", *said]))
    assert found.background.tolist() == [[[0x10, 0x20, 0x30]]]
    assert (found.premultiplied, found.mask) == (True, Band(3, 0.04))
    assert (found.tile, found.views, found.knn, found.half) == (256, 4, True, True)
    assert found.show_progress
    assert not _settings(parse(["a.jpg", "b.png", *said, "--quiet"])).show_progress
    assert not _settings(parse(["a.mp4", "--trimaps", "b", "-o", "c.mkv"])).show_progress
    assert _settings(parse(["a.jpg", "b.png", "-o", "c.png", "--quantize"])).quantize
