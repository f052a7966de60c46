"""What an export writes equals the network, keeps the wire contract, or is not written at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.__main__ import main
from export.engine import Profile, build_engine, find_gpu
from export.errors import ExportError
from export.export import (
    TEMPLATE,
    WEIGHTS,
    Exported,
    check_place,
    copy_all,
    expected_alphas,
    export,
    prove,
    prove_in_bf16,
    put_in_place,
    read_config,
    with_profile,
    with_settings,
    write_onnx,
)
from export.manifest import check, read_manifest, sha256
from export.overflow import largest_magnitudes, overflows
from export.parity import (
    Matte,
    Parity,
    Picture,
    alphas_in_batches,
    matte_with,
    read_pictures,
    with_mirror_images,
)
from export.runtime import onnx_matte, openvino_precision
from export.tolerance import TOLERANCES, Tolerance
from matting.images import ImageError, write_image
from train.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def served(exported: Exported) -> Matte:
    return onnx_matte(exported.artifact, "onnxruntime")


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 200), (33, 31), (96, 64)])
def test_any_size_equals_the_network(
    seeded_weights: Path, served: Matte, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    trimap = rng.choice(np.array([0, 7, 128, 255], np.uint8), (2, *size, 1))
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
    assert 'key: "engine" value { string_value: "openvino" }' in config
    assert 'key: "precision" value { string_value: "fp32" }' in config


def config_of(model: Path) -> str:
    return (model / "config.pbtxt").read_text()


Known = tuple[list[Picture], list[np.ndarray]]


@pytest.fixture(scope="module")
def default_alphas() -> Known:
    """The pictures that the default network is proven on, and what it answers."""
    known = with_mirror_images(list(read_pictures()))
    return known, expected_alphas(load_checkpoint(TEMPLATE / "1" / WEIGHTS), known)


def test_the_default_network_may_be_served_in_bf16(default_alphas: Known) -> None:
    assert 'key: "precision" value { string_value: "auto" }' in config_of(TEMPLATE)
    if openvino_precision() != "bf16":
        pytest.skip("this processor does not compute in bf16")
    known, expected = default_alphas
    parity = prove_in_bf16(expected, TEMPLATE / "1/model.onnx", known)
    assert isinstance(parity, Parity), parity


def test_the_default_network_is_itself_in_fp16(default_alphas: Known, tmp_path: Path) -> None:
    weights = TEMPLATE / "1" / WEIGHTS
    graph = write_onnx(load_checkpoint(weights), weights, "fp16", tmp_path)
    known, expected = (of_all[:3] for of_all in default_alphas)  # one batch
    parity = prove(expected, graph, "onnxruntime", "fp16", known)
    assert parity.summary()["mean_difference"] > 0  # it is another precision


@pytest.mark.parametrize("space", [" ", "\n    "])
def test_engine_and_precision_are_set_and_nothing_else(tmp_path: Path, space: str) -> None:
    written = config_of(TEMPLATE).replace(" value { ", f"{space}value {{{space}")
    expected = written.replace('"openvino"', '"onnxruntime"').replace('"auto"', '"fp32"')
    assert with_settings(written, "onnxruntime", "fp32") == expected != written


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (config_of(TEMPLATE).replace('key: "engine"', 'key: "motor"'), "0 times .*'engine'"),
        (config_of(TEMPLATE) * 2, "2 times .*'engine'"),
        ('parameters { key: "engine" value { string_value: "x" } }', "0 times .*'precision'"),
    ],
)
def test_a_config_that_cannot_be_set_is_refused(config: str, complaint: str) -> None:
    with pytest.raises(ExportError, match=complaint):
        with_settings(config, "onnxruntime", "fp32")


def test_tensorrts_config_fits_the_profile() -> None:
    written = read_config(TEMPLATE, "configs/tensorrt.pbtxt")
    profile = Profile((1, 32, 32), (2, 96, 160), (4, 256, 320))
    config = text_format.Parse(with_profile(written, profile), ModelConfig())
    assert config.max_batch_size == 4
    (warmup,) = config.model_warmup
    assert (warmup.name, warmup.batch_size) == ("96x160", 1)
    assert list(warmup.inputs["image"].dims) == [96, 160, 3]
    assert list(warmup.inputs["trimap"].dims) == [96, 160, 1]
    again = with_profile(with_profile(written, profile), Profile())
    assert with_profile(written, Profile()) == again
    assert text_format.Parse(again, ModelConfig()).max_batch_size == 8
    expected = text_format.Parse(written, ModelConfig())
    for unlike in (config, expected):
        unlike.max_batch_size = 0
        del unlike.model_warmup[:]
    assert config == expected


@pytest.mark.parametrize(
    ("smallest", "config", "complaint"),
    [
        ((2, 1, 1), "", "smallest input is 2x1x1: its N has to be 1"),
        ((1, 1, 1), "", "says 0 times what max_batch_size is, expected 1"),
        ((1, 1, 1), 'max_batch_size: 8\nname: "1x1"\n', "0 times what the warm-up's size is"),
    ],
)
def test_tensorrts_config_that_cannot_fit_is_refused(
    smallest: tuple[int, int, int], config: str, complaint: str
) -> None:
    with pytest.raises(ExportError, match=complaint):
        with_profile(config, Profile(smallest, (2, 64, 64), (2, 64, 64)))


def test_a_config_is_refused_before_a_file_is_replaced(
    exported: Exported,
    seeded_weights: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    (models / "dim/config.pbtxt").write_text("parameters []")
    before = contents(tmp_path)
    graph = exported.artifact

    def no_work(network: object, weights: Path, precision: str, folder: Path, ranges: object):
        """The graph of before."""
        for name in (graph.name, WEIGHTS):
            shutil.copy(graph.with_name(name), folder)
        return folder / graph.name

    monkeypatch.setattr("export.export.write_onnx", no_work)
    with pytest.raises(ExportError, match=r"config\.pbtxt says 0 times"):
        export(seeded_weights, models, "onnxruntime", pictures=pairs)
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
    assert exported.artifact.stat().st_size < 500_000


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


def test_every_picture_of_a_batch_is_judged(
    seeded_weights: Path, exported: Exported, pictures: list[Picture]
) -> None:
    """An engine that answers all of a batch with the first one's alpha is not the network."""
    matte = onnx_matte(exported.artifact, "onnxruntime")
    sizes = []

    def first_for_all(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        sizes.append(len(image))
        return np.repeat(matte(image[:1], trimap[:1]), len(image), axis=0)

    known = with_mirror_images(pictures[:1])
    expected = expected_alphas(load_checkpoint(seeded_weights), known)
    found = alphas_in_batches(first_for_all, known, 3)
    assert sizes == [3]
    apart = [np.abs(e.astype(int) - f).mean() > 1 for e, f in zip(expected, found, strict=True)]
    assert apart == [False, True, True]


@pytest.mark.parametrize("there", [False, True])
def test_a_refusal_changes_nothing(
    there: bool,
    exported: Exported,
    seeded_weights: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    models = tmp_path / "new/models"
    if there:
        shutil.copytree(exported.artifact.parents[2], models)
    before = contents(tmp_path)
    monkeypatch.setitem(TOLERANCES, "fp32", Tolerance(metric=-1, mean_alpha=-1))  # not even equal
    arguments = ["--target", "onnxruntime", "--repository", str(models), "--data", str(pairs)]
    assert main([str(seeded_weights), *arguments]) == 1
    assert "not equal to the network: SAD is" in capsys.readouterr().err
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder."""
    return {str(p.relative_to(folder)): sha256(p) if p.is_file() else "" for p in folder.rglob("*")}


def test_fp16_overflow_is_named_with_its_layer(
    oracle_network: Callable, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = oracle_network(1)
    with torch.no_grad():
        network.backbone.encoder.layer3[2].weight *= 1e5
        network.backbone.encoder.layer3[4].weight *= 1e-5
    weights, models = tmp_path / "large.safetensors", tmp_path / "models"
    save_checkpoint(network, weights, {}, torch.float32)
    arguments = ["--precision", "fp16", "--repository", str(models), "--data", str(pairs)]
    assert main([str(weights), *arguments]) == 1
    assert "encoder.layer3.2 reaches" in capsys.readouterr().err
    assert not models.exists()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_nan_is_named_with_its_layer(
    oracle_network: Callable,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    precision: str,
) -> None:
    network = oracle_network(1)
    with torch.no_grad():
        network.backbone.decoder.deconv3_1.bias[7] = torch.nan
    weights, models = tmp_path / "nan.safetensors", tmp_path / "models"
    save_checkpoint(network, weights, {})
    arguments = ["--precision", precision, "--repository", str(models), "--data", str(pairs)]
    assert main([str(weights), *arguments]) == 1
    error = capsys.readouterr().err
    assert "decoder.deconv3_1 reaches nan" in error
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


def test_nvidias_parser_and_builder_take_the_graph_in_fp32(exported: Exported) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    engine, facts = build_engine(exported.artifact, "tensorrt-rtx", "fp32", Profile())
    weights = exported.artifact.with_name("weights.safetensors").stat().st_size
    assert len(engine) > 2 * weights  # stored as FP16, computed in FP32
    assert facts["profile"]["largest"] == (8, 1088, 1920)


def test_nvidias_parser_and_builder_take_the_graph_in_fp16(
    seeded_weights: Path, pairs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    made = export(seeded_weights, tmp_path / "models", "tensorrt-rtx", "fp16", pictures=pairs)
    assert made.parity is None  # no GPU to run it on
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


def test_check_names_what_to_rebuild(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    assert main(["check", str(models)]) == 0
    with (models / "dim/1/model.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["check", str(models)]) == 1
    assert "model.onnx is not the file that was exported" in capsys.readouterr().err
    (models / "dim/1/weights.safetensors").unlink()
    assert main(["check", str(models)]) == 1
    assert "weights.safetensors is missing: rebuild it" in capsys.readouterr().err
    (models / "dim/1/manifest.json").write_text('{"model.onnx": ')  # half copied
    assert main(["check", str(models)]) == 1
    assert "manifest.json is damaged: export the model again" in capsys.readouterr().err
    (models / "dim/1/manifest.json").unlink()
    assert main(["check", str(models)]) == 1
    assert "manifest.json is missing" in capsys.readouterr().err


def test_check_looks_at_every_version(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    for version in ("2", "10"):
        shutil.copytree(models / "dim/1", models / "dim" / version)
    assert main(["check", str(models)]) == 0
    folders = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert folders == [str(models / "dim" / version) for version in ("1", "2", "10")]
    (models / "dim/2/model.onnx").write_text("damaged")
    assert main(["check", str(models)]) == 1
    assert capsys.readouterr().err.startswith(f"check: {models}/dim/2: model.onnx is not the file")


def test_an_export_is_made_of_the_template_alone(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may serve versions of its own, and have been started; and a folder may lack parts."""
    template = tmp_path / "template/dim"
    shutil.copytree(TEMPLATE, template)
    (template / "2").mkdir()
    (template / "1/__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr("export.export.TEMPLATE", template)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "config.pbtxt").write_text("own")
    for model in (old, new):
        build = tmp_path / f"build of {model.name}"
        build.mkdir()
        shutil.copy(exported.artifact, build)
        put_in_place(build, model, "model.onnx", {"files": {"model.onnx": ""}}, {})
        assert sorted(contents(model)) == [
            "1",
            "1/manifest.json",
            "1/model.onnx",
            "1/model.py",
            "config.pbtxt",
            "configs",
            "configs/onnxruntime.pbtxt",
            "configs/openvino.pbtxt",
            "configs/tensorrt.pbtxt",
        ]
    assert config_of(old) == "own" != config_of(new)


@pytest.mark.parametrize("there", [False, True])
def test_a_repository_may_be_a_file_system_of_its_own(there: bool, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm is no file system of its own here")
        (tmp_path / "models").symlink_to(elsewhere)
        (tmp_path / "model.onnx").write_text("graph")
        model = tmp_path / "models/dim"
        if there:
            (model / "1").mkdir(parents=True)
            (model / "1/model.onnx").write_text("graph of before")
        check_place(model)
        put_in_place(tmp_path, model, "model.onnx", {"files": {"model.onnx": ""}}, {})
        assert (model / "1/model.onnx").read_text() == "graph"
        assert [path.name for path in Path(elsewhere).iterdir()] == ["dim"]
        assert not [name for name in contents(model) if ".partial" in name]


def test_nothing_is_replaced_where_not_all_can_be_copied(tmp_path: Path) -> None:
    version = tmp_path / "dim/1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_text("graph of before")
    (tmp_path / "model.onnx").write_text("graph")
    names = ("model.onnx", WEIGHTS)  # which is not there to be copied
    with pytest.raises(FileNotFoundError):
        copy_all({tmp_path / name: version / name for name in names})
    assert [path.name for path in version.iterdir()] == ["model.onnx"]
    assert (version / "model.onnx").read_text() == "graph of before"


@pytest.mark.parametrize("part", ["models", "models/dim", "models/dim/1"])
def test_a_place_that_cannot_be_written_to_is_refused_before_work(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, there = tmp_path / "models/dim", tmp_path / part
    there.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != there)  # root may do anything
    with pytest.raises(PermissionError, match=part):
        check_place(model)
    monkeypatch.undo()
    check_place(model)
    there.rmdir()
    there.touch()
    with pytest.raises(FileExistsError, match=part):
        check_place(model)


def test_a_newer_version_that_is_served_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    artifact = tmp_path / "dim/1/model.onnx"
    monkeypatch.setattr("export.__main__.export", lambda *_, **__: Exported(artifact, None))
    for version, warning in (
        ("1", ""),
        ("12", f"export: {tmp_path}/dim/12 is newer, and served in its place\n"),
    ):
        (tmp_path / "dim" / version).mkdir(parents=True)
        assert main(["weights", "--repository", str(tmp_path)]) == 0
        assert capsys.readouterr().err == warning


def test_check_names_what_cannot_run_here(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A plan from another machine, beside a graph of other weights."""
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    version = models / "dim/1"
    (version / "model.plan").write_bytes(b"plan")
    gpu = {"name": "NVIDIA A9000", "compute_capability": "8.0", "driver": "1"}
    entry = {
        "target": "tensorrt",
        "precision": "fp16",
        "weights": "of others",
        "files": {"model.plan": sha256(version / "model.plan")},
        "engine": {"version": "10.1", "gpu": gpu},
    }
    manifest = version / "manifest.json"
    manifest.write_text(json.dumps(read_manifest(version) | {"model.plan": entry}))
    assert main(["check", str(models)]) == 1
    misfit, other_weights = capsys.readouterr().err.splitlines()
    assert "model.plan was built" in misfit
    assert misfit.endswith(
        "rebuild it: python -m export WEIGHTS --target tensorrt --precision fp16"
    )
    assert "model.onnx, model.plan were made from different weights" in other_weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{here}/nowhere.pth"], "nowhere.pth: no such file"),
        (["{weights}", "--data", "{here}"], "image: no pictures"),
        (["{weights}", "--data", "{pairs}", "--repository", "{weights}"], "File exists"),
        (["{weights}", "--largest", "1x64x64"], "1x1024x1024 and 1x64x64: expected N, H and W"),
        (["{weights}", "--smallest", "0x1x1"], "0x1x1, 1x1024x1024"),
        (
            ["{weights}", "--target", "tensorrt-rtx", "--capability", "9"],
            "compute capability is '9'",
        ),
        (["{weights}", "--target", "tensorrt-rtx", "--capability", "3.0"], "builds for"),
        (["{weights}", "--target", "tensorrt-rtx", "--capability", "89"], "builds for"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    seeded_weights: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    places = {"weights": seeded_weights, "pairs": pairs, "here": tmp_path}
    options = [word.format_map(places) for word in arguments]
    if "--repository" not in options:
        options += ["--repository", str(tmp_path / "models")]
    assert main(options) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_a_picture_without_its_trimap_is_named(pairs: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "trimap/astronaut_on_cat.png").unlink()
    with pytest.raises(ImageError, match=r"trimap/astronaut_on_cat\.\*: 0 files; expected one"):
        list(read_pictures(tmp_path))


@pytest.mark.parametrize("kind", ["trimap", "alpha"])
def test_a_picture_whose_parts_are_not_of_one_size_is_named(
    kind: str, pairs: Path, tmp_path: Path
) -> None:
    shutil.copytree(pairs, tmp_path, dirs_exist_ok=True)
    write_image(tmp_path / kind / "astronaut_on_cat.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(ImageError, match=rf"astronaut_on_cat\.png: image is \d+x75.* {kind} 30x20"):
        list(read_pictures(tmp_path))


def test_hidden_files_beside_pictures_are_none(pairs: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "image/.DS_Store").touch()
    (tmp_path / "image/._astronaut_on_cat.png").touch()
    assert len(list(read_pictures(tmp_path))) == len(list(read_pictures(pairs)))


def test_what_cannot_be_looked_at_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "x" * 300]) == 2  # longer than a name can be
    error = capsys.readouterr().err
    assert error.startswith("check: ") and error.count("\n") == 1
