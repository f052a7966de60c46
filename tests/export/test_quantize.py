"""Eight bits: in the layers that bear them, on processors that add them up rightly, near enough."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from client.matte import Matte
from export.__main__ import main
from export.export import expected_alphas, export, write_onnx
from export.manifest import WEIGHTS, check, read_manifest
from export.parity import Picture, alpha_alone, compare, judge, read_pictures
from export.processor import has_vnni
from export.quantize import Ranges, input_ranges
from export.repository import TEMPLATE
from export.runtime import compile_openvino, onnx_matte
from server.launcher import launch
from train.checkpoint import load_checkpoint, save_checkpoint

DEFAULT = TEMPLATE / "1" / WEIGHTS
IN_EIGHT_BITS = 12
"""conv6, the decoder's seven, the refiner's four."""

needs_vnni = pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")


@pytest.fixture(scope="module")
def known() -> list[Picture]:
    """The project's own pictures, the smallest first."""
    return sorted(read_pictures(), key=lambda picture: picture.trimap.size)


@pytest.fixture(scope="module")
def expected_and_ranges(known: list[Picture]) -> tuple[list[np.ndarray], Ranges]:
    """What the default network answers, and what its layers had meanwhile."""
    network = load_checkpoint(DEFAULT)
    with input_ranges(network) as ranges:
        return expected_alphas(network, known), ranges


def test_ranges_hold_nearly_all_of_a_layers_input(oracle_network: Callable) -> None:
    network = oracle_network(3)
    inputs = {}
    layer = network.refiner.refine_conv1
    layer.register_forward_pre_hook(lambda _, given: inputs.update(x=given[0]))
    with input_ranges(network) as ranges, torch.no_grad():
        network(torch.randn(1, 3, 64, 64), torch.rand(1, 1, 64, 64))
    low, high = ranges["refiner.refine_conv1"]
    outside = ((inputs["x"] < low) | (inputs["x"] > high)).double().mean()
    assert low < 0 < high and 0 < outside < 3e-4
    assert len(ranges) == IN_EIGHT_BITS and not any("encoder.layer" in name for name in ranges)
    others = [low for name, (low, _) in ranges.items() if name != "refiner.refine_conv1"]
    assert others == [0.0] * (IN_EIGHT_BITS - 1)  # they come after a ReLU


@pytest.mark.usefixtures("traced_once")
def test_the_graph_as_it_is_written_is_the_network_within_2_percent(
    expected_and_ranges: tuple[list[np.ndarray], Ranges], known: list[Picture], tmp_path: Path
) -> None:
    """Computed in FP32 step by step, which every processor can."""
    expected, ranges = expected_and_ranges
    path = write_onnx(load_checkpoint(DEFAULT), DEFAULT, "fp32", tmp_path, ranges)
    graph = onnx.load(path, load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 2 * IN_EIGHT_BITS
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def written(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        return session.run(["alpha"], {"image": image, "trimap": trimap})[0]

    comparisons = [
        compare(picture, alpha, alpha_alone(written, picture))
        for picture, alpha in zip(known, expected, strict=True)
    ]
    parity = judge(comparisons, "int8")
    assert not parity.complaints
    assert 1e-4 < parity.summary()["mean_difference"] < 2e-3  # it is another precision
    assert judge(comparisons, "fp32").complaints


@needs_vnni
@pytest.mark.usefixtures("traced_once")
def test_an_export_in_int8_is_proven_multiplied_in_eight_bits_and_served(
    known: list[Picture], tmp_path: Path
) -> None:
    exported = export(DEFAULT, tmp_path / "models", precision="int8")
    version = exported.artifact.parent
    assert check(version) == []
    entry = read_manifest(version)["model.onnx"]
    assert entry["precision"] == "int8" and entry["parity"] == exported.parity.summary()
    compiled = compile_openvino(exported.artifact, "int8").get_runtime_model()
    facts = [operation.get_rt_info() for operation in compiled.get_ordered_ops()]
    kernels = [
        fact["primitiveType"].astype(str)
        for fact in facts
        if fact["layerType"].astype(str) == "Convolution"
    ]
    assert sum(kernel.endswith("I8") for kernel in kernels) == IN_EIGHT_BITS
    with launch(tmp_path / "models") as server, Matte(server.grpc_url) as matte:
        served = matte.alpha(known[0].image, known[0].trimap)
    alone = alpha_alone(onnx_matte(exported.artifact, "openvino", "int8"), known[0])
    np.testing.assert_array_equal(served, alone)


def test_a_layer_without_signal_has_a_scale(oracle_network: Callable, tmp_path: Path) -> None:
    """Nor a bias. In a graph of its own, for PyTorch's exporter drops what is 0."""
    network = oracle_network(1)
    with torch.no_grad():
        network.backbone.encoder.conv6.weight.zero_()
        network.backbone.encoder.conv6.bias.zero_()
    black = Picture("black", *(np.zeros((32, 32, *c), np.uint8) for c in ((3,), (), ())))
    with input_ranges(network) as ranges:
        expected = expected_alphas(network, [black])
    weights = tmp_path / "dead.safetensors"
    save_checkpoint(network, weights, {})
    path = write_onnx(network, weights, "fp32", tmp_path, ranges)
    found = alpha_alone(onnx_matte(path, "openvino"), black)
    np.testing.assert_array_equal(found, expected[0])


def test_int8_is_refused_before_work_where_it_cannot_be_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    models = tmp_path / "models"
    arguments = [str(DEFAULT), "--precision", "int8", "--repository", str(models)]
    assert main([*arguments, "--target", "onnxruntime"]) == 1
    assert "--precision int8 is for --target cpu or openvino" in capsys.readouterr().err
    monkeypatch.setattr("export.export.has_vnni", lambda: False)
    assert main(arguments) == 1
    assert "needs a processor with VNNI" in capsys.readouterr().err
    assert not models.exists()
