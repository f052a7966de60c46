"""Checkpoints of others, exported: mmediting's is served unchanged, other types fit in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from client.connection import Matte
from export.__main__ import main
from export.export import expected_alphas, store_weights
from export.manifest import read_manifest
from export.parity import Picture, compare, judge
from server.launcher import launch
from train.checkpoint import load_checkpoint, read_safetensors, read_state


@pytest.mark.usefixtures("traced_once")
def test_mmeditings_checkpoint_is_exported_and_served(
    oracle_network: Callable, data: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    """In torch's old format, with what training leaves in it."""
    network = oracle_network(3)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    content = {"meta": {"epoch": 1}, "state_dict": state, "optimizer": {"param_groups": []}}
    weights, models = tmp_path / "dim.pth", tmp_path / "models"
    torch.save(content, weights, _use_new_zipfile_serialization=False)
    arguments = ["--target", "onnxruntime", "--repository", str(models), "--data", str(data)]
    assert main([str(weights), *arguments]) == 0
    assert main(["check", str(models)]) == 0
    facts = read_safetensors(models / "dim/1/weights.safetensors")[1]
    assert facts["stage"] == '"2 or 3"'  # nobody can tell
    (expected,) = expected_alphas(network, pictures[:1])
    with launch(models) as server, Matte(server.grpc_url) as matte:
        served = matte.alpha(pictures[0].image, pictures[0].trimap)
    assert judge([compare(pictures[0], expected, served)], "fp32").complaints == []


@pytest.mark.usefixtures("traced_once")
def test_a_graph_and_an_engine_of_one_checkpoint_fit_together(
    oracle_network: Callable, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """One in FP32, the other in FP16, with the weights that each has."""
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    weights, models = tmp_path / "dim.pth", tmp_path / "models"
    torch.save(oracle_network(3).state_dict(), weights)
    where = ["--repository", str(models), "--data", str(data)]
    assert main([str(weights), *where, "--target", "onnxruntime"]) == 0
    assert main([str(weights), *where, "--target", "tensorrt-rtx"]) == 0
    assert main(["check", str(models)]) == 0
    entries = read_manifest(models / "dim/1")
    assert {name: entry["precision"] for name, entry in entries.items()} == {
        "model.onnx": "fp32",
        "model.rtx": "fp16",
    }
    halves = {name: value / 2 for name, value in oracle_network(3).state_dict().items()}
    torch.save(halves, weights)
    assert main([str(weights), *where, "--target", "tensorrt-rtx"]) == 0
    capsys.readouterr()
    assert main(["check", str(models)]) == 1
    assert "model.onnx, model.rtx were made from different weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "suffix", "precision", "stored_as"),
    [
        (torch.bfloat16, ".safetensors", "fp32", torch.float32),
        (torch.float64, ".pth", "fp32", torch.float32),
        (torch.float32, ".safetensors", "fp16", torch.float16),
    ],
)
def test_other_types_are_stored_as_the_graph_takes_them(
    oracle_network: Callable,
    tmp_path: Path,
    dtype: torch.dtype,
    suffix: str,
    precision: str,
    stored_as: torch.dtype,
) -> None:
    state = {name: value.to(dtype) for name, value in oracle_network(1).state_dict().items()}
    weights = tmp_path / f"other{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, weights)
    network = load_checkpoint(weights)
    (tmp_path / "new").mkdir()
    stored = read_state(store_weights(network, weights, precision, tmp_path / "new"))
    assert all(torch.equal(stored[name], value.to(stored_as)) for name, value in state.items())
    assert {value.dtype for value in stored.values()} == {stored_as}
