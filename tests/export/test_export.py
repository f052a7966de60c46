"""What an export writes equals the network, keeps the wire contract, or is not written at all."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.__main__ import main
from export.engine import find_gpu
from export.errors import ExportError
from export.export import (
    Exported,
    expected_alphas,
    export,
    prove,
    prove_in_bf16,
    write_onnx,
)
from export.manifest import WEIGHTS, check
from export.overflow import largest_magnitudes, overflows
from export.parity import (
    Matting,
    Parity,
    Picture,
    matte_with,
    read_pictures,
    with_mirror_images,
)
from export.repository import TEMPLATE
from export.runtime import onnx_matte, openvino_precision
from export.tolerance import TOLERANCES, Tolerance
from matting.files import sha256
from train.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def served(exported: Exported) -> Matting:
    return onnx_matte(exported.artifact, "onnxruntime")


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 200), (33, 31), (96, 64)])
def test_any_size_equals_the_network(
    seeded_weights: Path, served: Matting, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    trimap = rng.choice(np.array([0, 1, 7, 128, 254, 255], np.uint8), (2, *size, 1))
    expected = matte_with(load_checkpoint(seeded_weights))(image, trimap)
    alpha = served(image, trimap)
    assert alpha.dtype == np.uint8 and alpha.shape == (2, *size, 1)
    assert (alpha[trimap == 0] == 0).all() and (alpha[trimap == 255] == 255).all()
    assert np.abs(alpha.astype(int) - expected).mean() <= 0.5


def test_metrics_equal_the_networks(exported: Exported) -> None:
    summary = exported.parity.summary()
    assert summary["pictures"] == 5  # the smallest turned twice besides
    for name, value in summary["reference"].items():
        assert summary["exported"][name] == pytest.approx(value, rel=1e-3)
    assert summary["mean_difference"] <= 5e-4


def test_openvino_equals_the_network(
    seeded_weights: Path, exported: Exported, pictures: list[Picture]
) -> None:
    expected = expected_alphas(load_checkpoint(seeded_weights), pictures[:1])
    assert prove(expected, exported.artifact, "openvino", "fp32", pictures[:1]) is not None


def test_the_drawn_network_is_served_in_fp32_since_bf16_changes_it(exported: Exported) -> None:
    own_bf16 = openvino_precision() == "bf16"
    assert exported.in_bf16.startswith("not equal" if own_bf16 else "not run")
    config = config_of(exported.artifact.parents[1])
    assert 'key: "engine" value { string_value: "cpu" }' in config
    assert 'key: "precision" value { string_value: "fp32" }' in config


def config_of(model: Path) -> str:
    return (model / "config.pbtxt").read_text()


def test_the_default_network_may_be_served_in_bf16() -> None:
    assert 'key: "precision" value { string_value: "auto" }' in config_of(TEMPLATE)
    if openvino_precision() != "bf16":
        pytest.skip("this processor does not compute in bf16")
    known = with_mirror_images(list(read_pictures()))
    expected = expected_alphas(load_checkpoint(TEMPLATE / "1" / WEIGHTS), known)
    parity = prove_in_bf16(expected, TEMPLATE / "1/model.onnx", known)
    assert isinstance(parity, Parity), parity


def test_the_default_network_is_itself_in_fp16(tmp_path: Path) -> None:
    weights = TEMPLATE / "1" / WEIGHTS
    network = load_checkpoint(weights)
    graph = write_onnx(network, weights, "fp16", tmp_path)
    known = with_mirror_images(list(read_pictures()))[:3]  # one batch
    parity = prove(expected_alphas(network, known), graph, "onnxruntime", "fp16", known)
    assert parity.summary()["mean_difference"] > 0  # it is another precision


def test_a_config_is_refused_before_a_file_is_replaced(
    exported: Exported, seeded_weights: Path, data: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    (models / "dim/config.pbtxt").write_text("parameters []")
    before = contents(tmp_path)
    with pytest.raises(ExportError, match=r"config\.pbtxt sets .* 0 times"):
        export(seeded_weights, models, "onnxruntime", pictures=data)
    assert contents(tmp_path) == before


def test_graph_keeps_the_contract_and_is_small(exported: Exported) -> None:
    graph = onnx.load(exported.artifact, load_external_data=False).graph
    signature = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    sizes = ["N", "H", "W"]
    assert signature == {"image": [*sizes, 3], "trimap": [*sizes, 1], "alpha": [*sizes, 1]}
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {
        onnx.TensorProto.UINT8
    }
    kinds = [node.op_type for node in graph.node]
    # Neither exists in TensorRT. ScatterND is what torch makes of unpooling by itself.
    assert not {"MaxUnpool", "ScatterND", "MaxPool"} & set(kinds)
    parameters = sum(name.endswith((".weight", ".bias")) for name in weight_names(graph))
    assert len(kinds) - kinds.count("Cast") <= 170 and parameters == 0
    # TensorRT 8.6 knows none of Shape's attributes.
    assert not any(node.attribute for node in graph.node if node.op_type == "Shape")
    assert exported.artifact.stat().st_size < 100_000
    assert not any(node.metadata_props for node in graph.node)
    # The network is traced at one size.
    sized = {v.name for v in graph.value_info if v.type.tensor_type.HasField("shape")}
    assert not sized & {node.output[0] for node in graph.node if node.op_type == "Conv"}
    assert str(Path(__file__).parents[2]).encode() not in exported.artifact.read_bytes()


def weight_names(graph: onnx.GraphProto) -> list[str]:
    """Parameters that lie inside the graph's own file."""
    inside = [t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    return [tensor.name for tensor in inside]


def test_weights_are_stored_once_and_load_as_a_checkpoint(
    exported: Exported, seeded_weights: Path
) -> None:
    stored = exported.artifact.with_name("weights.safetensors")
    assert stored.read_bytes() == seeded_weights.read_bytes()
    assert load_checkpoint(stored).refiner is not None


def test_another_network_is_refused_and_nothing_is_written(
    exported: Exported, oracle_network: Callable, pictures: list[Picture]
) -> None:
    other = oracle_network(3)
    with torch.no_grad():
        other.backbone.decoder.deconv1.bias += 0.3
    expected = expected_alphas(other, pictures)
    with pytest.raises(ExportError, match=r"not equal to the network: SAD is"):
        prove(expected, exported.artifact, "onnxruntime", "fp32", pictures)


@pytest.mark.parametrize("there", [False, True])
def test_a_refusal_changes_nothing(
    there: bool,
    exported: Exported,
    seeded_weights: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    models = tmp_path / "new/models"
    if there:
        shutil.copytree(exported.artifact.parents[2], models)
    before = contents(tmp_path)
    monkeypatch.setitem(TOLERANCES, "fp32", Tolerance(metric=-1, mean_alpha=-1))  # not even equal
    arguments = ["--target", "onnxruntime", "--repository", str(models), "--data", str(data)]
    assert main([str(seeded_weights), *arguments]) == 1
    assert "not equal to the network: SAD is" in capsys.readouterr().err
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder."""
    return {str(p.relative_to(folder)): sha256(p) if p.is_file() else "" for p in folder.rglob("*")}


def test_fp16_overflow_is_named_with_its_layer(
    oracle_network: Callable, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = oracle_network(1)
    with torch.no_grad():
        network.backbone.encoder.layer3[2].weight *= 1e5
        network.backbone.encoder.layer3[4].weight *= 1e-5
    weights, models = tmp_path / "large.safetensors", tmp_path / "models"
    save_checkpoint(network, weights, {}, torch.float32)
    arguments = ["--precision", "fp16", "--repository", str(models), "--data", str(data)]
    assert main([str(weights), *arguments]) == 1
    assert "encoder.layer3.2 reaches" in capsys.readouterr().err
    assert not models.exists()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_what_is_no_number_is_named_with_its_layer(
    oracle_network: Callable,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    precision: str,
) -> None:
    network = oracle_network(1)
    with torch.no_grad():
        network.backbone.decoder.deconv3_1.weight[7] = 3e38
    weights, models = tmp_path / "nan.safetensors", tmp_path / "models"
    save_checkpoint(network, weights, {}, torch.float32)
    arguments = ["--precision", precision, "--repository", str(models), "--data", str(data)]
    assert main([str(weights), *arguments]) == 1
    error = capsys.readouterr().err
    assert "decoder.deconv3_1 reaches inf" in error
    assert "decoder.deconv2_1 reaches nan" in error  # inf - inf
    assert "deconv4_1" not in error  # comes before
    assert not models.exists()


def test_weights_too_large_for_fp16_are_named(oracle_network: Callable) -> None:
    network = oracle_network(1)
    with torch.no_grad():
        network.backbone.encoder.layer1[0].weight[0, 0, 0, 0] = 1e6
    black = Picture("black", *(np.zeros((32, 32, *c), np.uint8) for c in ((3,), (), ())))
    with largest_magnitudes(network) as largest:
        expected_alphas(network, [black])
    assert [line.split()[0] for line in overflows(largest, "fp16")] == ["backbone.encoder.layer1.0"]
    assert overflows(largest, "fp32") == []


def test_nvidias_parser_and_builder_take_the_graph_in_fp16(
    seeded_weights: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    made = export(seeded_weights, tmp_path / "models", "tensorrt-rtx", "fp16", pictures=data)
    assert made.parity is None  # an engine for RTX is not run
    assert made.artifact.stat().st_size < 1.2 * seeded_weights.stat().st_size
    assert [path.name for path in sorted(made.artifact.parent.iterdir())] == [
        "manifest.json",
        "model.py",
        "model.rtx",
    ]
    assert check(made.artifact.parent) == []


def test_tensorrt_is_refused_where_it_cannot_run(
    seeded_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    try:
        find_gpu()
        pytest.skip("this machine has a GPU")
    except ExportError as error:
        assert "no NVIDIA GPU here" in str(error)
    models = tmp_path / "models"
    arguments = [str(seeded_weights), "--target", "tensorrt", "--repository", str(models)]
    assert main(arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not models.exists()


def test_a_newer_version_that_is_served_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    artifact = tmp_path / "dim/1/model.onnx"
    monkeypatch.setattr("export.command.export", lambda *_, **__: Exported(artifact, None))
    for version, warning in (
        ("1", ""),
        ("12", f"export: {tmp_path}/dim/12 is a newer version, which is served instead\n"),
    ):
        (tmp_path / "dim" / version).mkdir(parents=True)
        assert main(["weights", "--repository", str(tmp_path)]) == 0
        assert capsys.readouterr().err == warning


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{here}/nowhere.pth"], 2, "nowhere.pth: no such file"),
        (["{data}/alpha/astronaut_on_cat.png"], 2, "not a checkpoint, or cut short"),
        (
            ["{weights}", "--data", "{here}"],
            2,
            ": no pictures; expected image/, trimap/ and alpha/",
        ),
        (["{weights}", "--data", "{data}", "--repository", "{weights}"], 2, "Not a directory"),
        (["{weights}", "--largest", "1x64x64"], 1, "1x1024x1024 and 1x64x64: expected N, H and W"),
        (["{weights}", "--smallest", "0x1x1"], 1, "0x1x1, 1x1024x1024"),
        (
            ["{weights}", "--target", "tensorrt-rtx", "--capability", "9"],
            1,
            "compute capability is '9'",
        ),
        (["{weights}", "--target", "tensorrt-rtx", "--capability", "3.0"], 1, "builds for"),
        (["{weights}", "--target", "tensorrt-rtx", "--capability", "89"], 1, "builds for"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    code: int,
    message: str,
    seeded_weights: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    places = {"weights": seeded_weights, "data": data, "here": tmp_path}
    options = [word.format_map(places) for word in arguments]
    if "--repository" not in options:
        options += ["--repository", str(tmp_path / "models")]
    assert main(options) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_a_stopped_export_leaves_nothing(
    seeded_weights: Path, data: Path, tmp_path: Path, wait_until: Callable
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time, export.export\n"
        "def build_graph(*_):\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
        "export.export.build_graph = build_graph\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    options = [seeded_weights, "--data", data, "--repository", "models"]
    process = subprocess.Popen(
        [sys.executable, "-m", "export", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "begun").exists)
    assert any(scratch.glob("export-*"))
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (143, "export: stopped\n")
    assert not any(scratch.iterdir())
    assert not (tmp_path / "models").exists()
