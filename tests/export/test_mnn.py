"""What MNN runs is the network, with other words for its pooling and fewer products."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from export.errors import ExportError
from export.export import Exported, export, write_onnx
from export.manifest import WEIGHTS, check, installed_versions, read_manifest
from export.mnn import CONVERT, in_two_halves, pool_by_signs, write_mnn
from export.parity import Matting, matte_with
from export.repository import TEMPLATE
from export.runtime import mnn_matte, onnx_matte
from export.tolerance import TOLERANCES, Tolerance
from train.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("traced_once")

DEFAULT = TEMPLATE / "1"


@pytest.fixture(scope="module")
def by_mnn() -> Matting:
    return mnn_matte(DEFAULT / "model.mnn")


@pytest.fixture(scope="module")
def by_pytorch() -> Matting:
    return matte_with(load_checkpoint(DEFAULT / WEIGHTS))


def draw(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return image, rng.choice(np.array([0, 7, 128, 255], np.uint8), (2, height, width, 1))


@pytest.mark.parametrize("size", [(96, 64), (1, 1), (2, 1), (5, 200), (33, 31), (96, 64)])
def test_any_size_in_any_order_equals_the_network(
    by_mnn: Matting, by_pytorch: Matting, size: tuple[int, int]
) -> None:
    image, trimap = draw(*size)
    expected = by_pytorch(image, trimap)
    alpha = by_mnn(image, trimap)
    assert alpha.dtype == np.uint8 and alpha.shape == (2, *size, 1)
    assert (alpha[trimap == 0] == 0).all() and (alpha[trimap == 255] == 255).all()
    assert np.abs(alpha.astype(int) - expected).mean() <= 1.5  # 1 of one pixel, 0.03 of 96x64


def test_an_export_for_cpus_writes_and_judges_it(data: Path, tmp_path: Path) -> None:
    made = export(DEFAULT / WEIGHTS, tmp_path / "models", pictures=data)
    summary = made.in_winograd.summary()
    assert 0 < summary["mean_difference"] <= 1e-3  # it is another way to compute
    entry = read_manifest(made.artifact.parent)["model.onnx"]
    assert set(entry["files"]) == {"model.onnx", "model.mnn", WEIGHTS}
    assert entry["winograd"] == summary
    assert check(made.artifact.parent) == []


def test_one_that_is_not_equal_is_left_out_and_an_older_one_goes(
    exported: Exported,
    seeded_weights: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = tmp_path / "models"
    shutil.copytree(exported.artifact.parents[2], models)
    (models / "dim/1/model.mnn").write_bytes(b"of another network")
    monkeypatch.setitem(TOLERANCES, "winograd", Tolerance(metric=-1, mean_alpha=-1))
    made = export(seeded_weights, models, pictures=data)
    assert made.in_winograd.startswith("not equal to the network")
    assert set(read_manifest(models / "dim/1")["model.onnx"]["files"]) == {"model.onnx", WEIGHTS}
    assert not (models / "dim/1/model.mnn").exists()


def test_pooling_by_signs_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.mnn.NEAR", 0)
    model = ir.load(DEFAULT / "model.onnx")
    pool_by_signs(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("MaxPool") == 5 and kinds.count("Sign") == 15
    assert kinds.count("Equal") == 2 and kinds.count("Where") == 4  # of the trimap
    shutil.copy(DEFAULT / WEIGHTS, tmp_path)
    (tmp_path / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    pair = draw(70, 90)
    expected = onnx_matte(DEFAULT / "model.onnx", "onnxruntime")(*pair)
    assert np.ptp(expected) == 255
    np.testing.assert_array_equal(
        onnx_matte(tmp_path / "model.onnx", "onnxruntime")(*pair), expected
    )


def test_two_halves_of_constants_are_nearly_the_whole(tmp_path: Path) -> None:
    """Held against what FP16 makes of them, which is what they are for."""
    scale, shift = np.float32([0.0171, 0.0039]), np.float32([-2.1179, 0.1])
    x = np.float32([[0, 1], [128, 77], [255, 255]])
    program = """<ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 2] x) => (float[n, 2] y) { z = Mul(x, scale) y = Add(z, shift) }"""
    model = ir.from_onnx_text(program)
    for name, array in (("scale", scale), ("shift", shift)):
        value = next(v for node in model.graph for v in node.inputs if v.name == name)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    in_two_halves(model)
    for value in model.graph.initializers.values():
        if value.uses():
            array = value.const_value.numpy()
            np.testing.assert_array_equal(array.astype(np.float16).astype(np.float32), array)
    ir.save(model, tmp_path / "g.onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "g.onnx").run(["y"], {"x": x})
    halves = [array.astype(np.float16).astype(np.float32) for array in (scale, shift)]
    error, of_halves = (np.abs(y - (x * scale + shift)) for y in (found, x * halves[0] + halves[1]))
    assert error.max() < 2e-5 < 1e-4 < of_halves.max()


@pytest.mark.skipif(
    installed_versions(("mnn",)).get("mnn")
    != read_manifest(DEFAULT)["model.onnx"]["tools"].get("mnn"),
    reason="another version of MNN than the one that wrote it",
)
def test_the_default_models_file_is_what_its_graph_gives(tmp_path: Path) -> None:
    write_mnn(DEFAULT / "model.onnx", tmp_path / "model.mnn")
    assert (tmp_path / "model.mnn").read_bytes() == (DEFAULT / "model.mnn").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.mnn"]


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        ("import no_such_module", "MNN's converter failed: .*No module named 'no_such_module'"),
        ("raise ModuleNotFoundError(\"No module named '_tools'\")", "MNN is not installed: pip"),
        ("raise SystemExit('cannot\\nconvert')", "MNN's converter failed: cannot convert$"),
    ],
)
def test_why_mnns_converter_failed_is_told(
    instead: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.mnn.CONVERT", instead)
    with pytest.raises(ExportError, match=reason):
        write_mnn(DEFAULT / "model.onnx", tmp_path / "model.mnn")
    assert not list(tmp_path.iterdir())


def test_without_mnns_converter_openvino_serves(
    seeded_weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.mnn.CONVERT", "raise SystemExit('cannot')")
    made = export(seeded_weights, tmp_path / "models", pictures=data)
    assert made.in_winograd == "MNN's converter failed: cannot"
    files = read_manifest(made.artifact.parent)["model.onnx"]["files"]
    assert set(files) == {"model.onnx", WEIGHTS}
    assert not made.artifact.with_name("model.mnn").exists()


def test_nothing_of_mnn_that_reports_to_its_makers_is_loaded() -> None:
    program = f"import MNN; {CONVERT.partition(';')[0]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    modules = done.stdout.split()
    assert {"MNN", "_tools"} <= set(modules), done.stderr
    assert not [
        name for name in modules if name.startswith(("MNN.tools", "aliyun", "urllib.request"))
    ]


def test_weights_in_fp32_stay_so(tmp_path: Path) -> None:
    network = load_checkpoint(DEFAULT / WEIGHTS)
    save_checkpoint(network, tmp_path / "fp32.safetensors", {}, torch.float32)
    onnx = write_onnx(network, tmp_path / "fp32.safetensors", "fp32", tmp_path)
    write_mnn(onnx, tmp_path / "model.mnn")
    assert (tmp_path / "model.mnn").stat().st_size > 1.9 * (DEFAULT / "model.mnn").stat().st_size
