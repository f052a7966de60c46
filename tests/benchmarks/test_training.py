"""mmediting's training, as the benchmark runs it, makes mmediting's samples."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.mmediting import transform
from benchmarks.training import FP32, LOOP, OURS, PLAIN, REFERENCE
from matting.images import read_gray, read_image

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


def test_samples_and_steps_are_measured(tmp_path: Path) -> None:
    assert main(["training", "--quick", "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "training.json").read_text())
    assert set(record["making"]["samples_ms"]) == {REFERENCE, OURS, PLAIN}
    assert set(record["training"]["samples_ms"]) >= {LOOP, FP32}
