"""What rounding a layer costs is measured as said, and leaves no trace in the network."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from benchmarks.__main__ import main
from benchmarks.precision import ALL, alpha_and_maxima, cost, rounded
from export.parity import read_pictures

FIRST = "backbone.encoder.layer1.0"


def test_a_layer_alone_and_all_together(weights: Path, data: Path, tmp_path: Path) -> None:
    command = ["precision", str(weights), "--quick", "--data", str(data), "-o", str(tmp_path)]
    assert main(command) == 0
    record = json.loads((tmp_path / "precision.json").read_text())
    rows = {(row["layer"], row["precision"]): row for row in record["rows"]}
    assert rows.keys() == {(layer, name) for layer in (FIRST, ALL) for name in ("fp16", "bf16")}
    for layer in (FIRST, ALL):
        # bf16 has 8 bits where FP16 has 11.
        coarse, fine = (rows[layer, name]["moved"] for name in ("bf16", "fp16"))
        assert 0 < 2 * fine < coarse < 0.1
    assert f"| {FIRST}" in (tmp_path / "precision.md").read_text()
    largest = record["largest"]
    assert len(largest) == 26 and largest[ALL] == max(largest.values()) >= largest[FIRST] > 0


def test_only_the_chosen_layer_is_rounded_and_only_for_a_while(
    oracle_network: Callable, data: Path
) -> None:
    network, picture = oracle_network(3), next(read_pictures(data))
    weight = network.refiner.refine_pred.weight
    exact = weight.clone()
    alpha, maxima = alpha_and_maxima(network, picture)
    with rounded(network.refiner.refine_pred, torch.float16):
        assert torch.equal(weight, exact.half().float()) and not torch.equal(weight, exact)
        _, same = alpha_and_maxima(network, picture)
        assert all(torch.equal(*pair) for pair in zip(maxima, same, strict=True))
    assert torch.equal(weight, exact)
    assert (alpha_and_maxima(network, picture)[0] == alpha).all()


def test_numbers_too_large_for_a_type_are_complained_about(
    oracle_network: Callable, data: Path
) -> None:
    network, pictures = oracle_network(3), list(read_pictures(data))
    first, second = network.backbone.encoder.layer1[0], network.backbone.encoder.layer1[2]
    first.weight.data *= 1e5
    first.bias.data *= 1e5
    second.weight.data /= 1e5
    exact = [alpha_and_maxima(network, picture) for picture in pictures]
    fp16, bf16 = (cost(network, [first], name, pictures, exact) for name in ("fp16", "bf16"))
    assert fp16["complaints"] and fp16["moved"] > 10 * bf16["moved"]
