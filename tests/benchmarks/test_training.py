"""mmediting's training, as the benchmark runs it, makes mmediting's samples."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.__main__ import main
from benchmarks.mmediting import load, transform, write_composites
from benchmarks.training import (
    AS_MMEDITING,
    BOTH,
    FP32,
    LEARN,
    LOOP,
    MAKE,
    OURS,
    PLAIN,
    REFERENCE,
    Sources,
    gpu_sections,
    time_on_gpu,
)
from matting.images import read_gray, read_image, write_image
from train.dataset import Foreground
from train.layouts import Composite
from train.synthesis import Synthesis

DIGESTS = {
    "merged": "a12f3e2f9a03b80a3de45cbc67a202a2c9d0128cf5ecaa378df221a016d306b0",
    "alpha": "a72dcf5919cc947cab18de3d165888ba2ae2d77d89f93636c770a42320f7a8e0",
    "trimap": "ade4a0f4460530023431397ee1e1781b3b5113b4f7d8a20bc8a9ccc03d2d1fad",
    "ori_merged": "4a681b926fcd301dab68e221a977b4e2ed821616828d2d359c0e7e43338265c7",
}
ORACLE = Path(__file__).parents[1] / "data/oracle"


def layers(name: str) -> dict[str, np.ndarray]:
    """Return a reference picture; its composite also in place of the other two layers."""
    stem = ORACLE / "infer" / name
    merged = np.ascontiguousarray(read_image(f"{stem}_merged.png")[..., ::-1])
    colours = {name: merged for name in ("fg", "bg", "merged", "ori_merged")}
    return {"alpha": read_gray(f"{stem}_alpha.png")} | colours


def test_a_flipped_crop_is_mmeditings() -> None:
    sample = transform(layers("b_353x470"), np.random.RandomState(2))
    for name, kind in (("alpha", "alpha"), ("trimap", "trimap"), ("ori_merged", "composite")):
        path = ORACLE / f"train/1_{kind}.png"
        stored = read_image(path)[..., ::-1] if kind == "composite" else read_gray(path)[..., None]
        expected = stored.transpose(2, 0, 1).astype(np.float32) / 255
        assert np.array_equal(sample[name].numpy(), expected)


def test_an_enlarged_and_resized_crop_is_mmeditings() -> None:
    """The digests are those of mmediting's tensors for this picture and seed."""
    sample = transform(layers("a_320x320"), np.random.RandomState(1))
    for name, digest in DIGESTS.items():
        assert hashlib.sha256(sample[name].numpy().tobytes()).hexdigest() == digest, name


def test_a_cutout_has_colours_and_alpha_of_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cutout, ground = (random.integers(0, 256, (20, 30, c), np.uint8) for c in (4, 3))
    for name, pixels in (("cutout", cutout), ("ground", ground)):
        write_image(tmp_path / f"{name}.png", pixels)
    path = tmp_path / "cutout.png"
    (files,) = write_composites([Composite("0", path, path, tmp_path / "ground.png")], tmp_path)
    found = load(files)
    assert np.array_equal(found["alpha"], cutout[..., 3])
    assert np.array_equal(found["fg"], cutout[..., 2::-1])
    assert np.array_equal(found["bg"], ground[..., ::-1])


def test_as_plain_as_mmeditings_leaves_out_all_that_it_does_not_do() -> None:
    settings = {field.name for field in fields(Synthesis)}
    assert settings - AS_MMEDITING.keys() == {"crop", "jpeg_quality"}
    ranges = {name for name, value in AS_MMEDITING.items() if value}
    assert ranges == {"foreground_zoom", "background_zoom", "trimap_kernel"}


def test_samples_and_steps_are_measured(tmp_path: Path) -> None:
    assert main(["training", "--quick", "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "training.json").read_text())
    making, training = (record[part]["samples_ms"] for part in ("making", "training"))
    assert making.keys() == {REFERENCE, OURS, PLAIN}
    assert training.keys() >= {LOOP, FP32}
    taken = [*making.values(), *training.values()]
    assert all(len(samples) == 1 and samples[0] > 0 for samples in taken)
    assert (tmp_path / "training.md").read_text().count("|   1 |") == len(taken)


@pytest.mark.usefixtures("narrow_network")
def test_what_a_gpu_would_wait_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU in place of a GPU."""
    monkeypatch.setattr("benchmarks.training.BATCHES", 1)
    monkeypatch.setattr("benchmarks.training.ROUNDS", 1)
    across = torch.linspace(0, 255, 60).byte().expand(1, 60, 60)
    foreground = Foreground(across.expand(3, 60, 60), across)
    backgrounds = [torch.full((3, 80, 80), 90, dtype=torch.uint8)]
    sources = Sources([], [foreground], backgrounds, side=32)
    part = time_on_gpu(sources, "cpu", batch=2)
    assert part["samples"] == 2
    assert {len(taken) for taken in part["samples_ms"].values()} == {1}
    assert all(min(taken) > 0 for taken in part["samples_ms"].values())
    table, text = gpu_sections(part)
    assert [row["on the GPU"] for row in table] == [MAKE, LEARN, BOTH]
    assert "waits" in text


def test_waiting_is_what_a_step_takes_longer_with_its_samples() -> None:
    part = {"samples": 160, "samples_ms": {MAKE: [50.0], LEARN: [95.0], BOTH: [100.0]}}
    table, text = gpu_sections(part)
    assert [row["samples/s"] for row in table] == ["3200.0", "1684.2", "1600.0"]
    assert [row["n"] for row in table] == ["1"] * 3
    assert text == "Of a step's time the GPU waits 5.0% for its samples."
