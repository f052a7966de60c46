"""Layers and peers: measured on the real server, and summed up right on known samples."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.ceiling import flops, matrix_rate, memory_rate, moved_values
from benchmarks.latency import SERVED, notes, peer_notes, peer_rows
from benchmarks.layers import ENGINE, INFER, NETWORK, network_alone, overheads
from benchmarks.load import END_TO_END, SERVER_PARTS
from benchmarks.peers import REFERENCE, open_peers
from benchmarks.service import Served, picture_of
from export.export import write_onnx
from export.manifest import WEIGHTS
from matting.files import sha256
from train.checkpoint import load_checkpoint
from train.network import DeepImageMatting
from train.predict import prepare

VERSION = Path(__file__).parents[2] / "model_repository/dim/1"


@pytest.fixture(scope="module")
def network() -> DeepImageMatting:
    """The default network, which `VERSION` has as a graph."""
    return load_checkpoint(VERSION / WEIGHTS)


def test_layers_and_peers_of_a_real_server(report: Path) -> None:
    record = json.loads((report / "latency.json").read_text())
    assert record["weights"] == sha256(VERSION / WEIGHTS)
    (measured,) = record["sizes"].values()
    layers, peers = measured["layers_ms"], measured["peers_ms"]
    parts = {f"server: {part}" for part in SERVER_PARTS}
    assert set(layers) == {NETWORK, ENGINE, END_TO_END} | parts
    assert set(peers) >= {SERVED, REFERENCE, "ONNX Runtime FP32"}
    assert {len(samples) for samples in [*layers.values(), *peers.values()]} == {3}
    assert min(*layers[ENGINE], *layers[END_TO_END], *layers[INFER]) > 0
    assert "no GPU" in record["skipped"].get("TensorRT FP16", "no GPU")
    assert f"| {REFERENCE} " in (report / "latency.md").read_text()


@pytest.mark.usefixtures("traced_once")
def test_all_peers_compute_the_same(network: DeepImageMatting, tmp_path: Path) -> None:
    image, trimap = (x[np.newaxis] for x in picture_of(96, 128))
    peers, _ = open_peers(network, VERSION, tmp_path, (96, 128), quick=True)
    alphas = {name: matte(image, trimap[..., np.newaxis]) for name, matte in peers.items()}
    expected = alphas.pop(REFERENCE).astype(int)
    assert np.ptp(expected) == 255
    for name, alpha in alphas.items():
        allowed = 5e-4 if "FP32" in name else 5e-3
        assert np.abs(alpha - expected).mean() / 255 < allowed, name


@pytest.mark.parametrize(
    ("engine", "precision", "allowed"),
    [
        ("onnxruntime", "fp32", 1e-4),
        ("onnxruntime", "fp16", 5e-3),
        ("openvino", "fp32", 1e-4),
        ("openvino", "fp16", 5e-3),
        ("mnn", "fp32", 1e-4),
    ],
)
@pytest.mark.usefixtures("traced_once")
def test_the_network_alone_is_the_network(
    engine: str, precision: str, allowed: float, network: DeepImageMatting, tmp_path: Path
) -> None:
    image, trimap = (torch.from_numpy(x) for x in picture_of(64, 96))
    inputs = prepare(image.permute(2, 0, 1)[None], trimap[None, None])
    graph = VERSION / "model.onnx"
    if precision == "fp16":
        graph = write_onnx(network, VERSION / WEIGHTS, precision, tmp_path)
    found = network_alone(graph, Served(engine, "fp32"))(torch.cat(inputs, dim=1).numpy())
    with torch.no_grad():
        coarse, refined = network(*inputs)
    expected = (coarse if refined is None else refined).numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.abs(found - expected).mean() < allowed


def test_work_per_pixel_is_the_published_one() -> None:
    with torch.device("meta"):
        network = DeepImageMatting()
    assert flops(network, 320, 320) == pytest.approx(320 * 320 * 1.33e6, rel=0.01)
    assert flops(network, 300, 310) == flops(network, 320, 320)


def test_what_the_refiner_moves_is_what_its_layers_read_and_write() -> None:
    with torch.device("meta"):
        with_it, without = DeepImageMatting(), DeepImageMatting(refiner=False)
    pixels = 64 * 96
    channels = [4, 64, 64, 64, 1]
    values = sum(
        (read + written) * pixels + (9 * read + 1) * written for read, written in pairwise(channels)
    )
    assert moved_values(with_it, 60, 90) - moved_values(without, 60, 90) == values


def test_memory_is_between_a_gigabyte_and_ten_terabytes_a_second() -> None:
    assert 1e9 < memory_rate() < 1e13


def test_rates_of_known_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"1024": [3.0, 2.0], "2048": [20.0, 10.0], "copy": [5.0, 4.0]}
    monkeypatch.setattr("benchmarks.ceiling.in_turns", lambda *_, **__: taken)
    monkeypatch.setattr("benchmarks.ceiling.COPIED", {"cpu": 1000})
    assert memory_rate() == 2 * 1000 / 0.004  # read and written
    del taken["copy"]
    assert matrix_rate() == 2 * 2048**3 / 0.010


def test_overheads_of_known_samples() -> None:
    """Shares of each round, for a machine may be slower in one than in the next."""
    samples = {
        **{NETWORK: [80, 40, 900], ENGINE: [100, 100, 1000]},
        **{INFER: [90, 95, 2000], END_TO_END: [100, 1000, 2100]},
    }
    assert overheads(samples) == pytest.approx(
        {"around the engine": 0.1, "around the network": 0.28}
    )


def test_ratios_and_shares_of_known_samples() -> None:
    layers = {NETWORK: [90], ENGINE: [100], INFER: [100], END_TO_END: [100]}
    record = {
        "precision": "fp32",
        "matrix_rate": 1e12,
        "skipped": {"TensorRT FP16": "no GPU"},
        "sizes": {
            "320x320": {
                "flops": 5e10,
                "layers_ms": layers,
                "peers_ms": {SERVED: [49, 50, 90], REFERENCE: [90, 125, 200]},
                "unknown": 0.204,
            }
        },
    }
    ours, reference = peer_rows(record)
    assert ours["320x320"] == "2.50× (50 ms)"
    assert reference["320x320"] == "1.00× (125 ms)"
    assert peer_notes(record) == [
        "Medians of 3 rounds.",
        "One photo, stretched; 20% of it is unknown.",
    ]
    record["sizes"]["64x64"] = {"peers_ms": {REFERENCE: [1, 1]}}
    assert peer_notes(record)[0] == "Medians of 3, 2 rounds."
    del record["sizes"]["64x64"]
    measured, missing = notes(record)
    assert "around the network 10.0%; 500 GFLOP/s, 50% of" in measured
    assert missing == "Not run: TensorRT FP16: no GPU."
