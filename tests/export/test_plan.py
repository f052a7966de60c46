"""Engines where there is no PyTorch, and what is said of their alphas."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock, create_autospec

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from benchmarks.engine import main as benchmark
from export.engine import build_engine, find_gpu
from export.errors import ExportError
from export.export import Exported
from export.manifest import WEIGHTS, check, read_manifest, write_entry
from export.parity import main as write_references
from export.parity import read_reference
from export.plan import graph_precision, main, measure
from export.repository import FOR_TENSORRT, TEMPLATE
from export.runtime import onnx_matte
from matting.files import sha256

ROOT = Path(__file__).parents[2]

WITHOUT = """
import sys
for missing in ("torch", "onnx", "onnxruntime", "cv2", "train"):
    sys.modules[missing] = None  # to import it is an error
from export.plan import main
code = main(sys.argv[1:])
print([name for name in sys.modules if name.startswith(("export.", "matting."))])
sys.exit(code)
"""


def test_an_engine_is_built_with_little_more_than_tensorrt(
    exported: Exported, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    plan = tmp_path / "model.rtx"
    options = ["-o", plan, "--target", "tensorrt-rtx"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, exported.artifact, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built, modules = done.stdout.splitlines()
    facts = json.loads(built.removeprefix(str(plan)))
    assert facts["flags"] == ["STRONGLY_TYPED"]
    assert facts["profile"]["largest"] == [8, 1088, 1920]
    weights = exported.artifact.with_name(WEIGHTS).stat().st_size
    assert plan.stat().st_size > 2 * weights  # stored as FP16, computed in FP32
    assert check(tmp_path) == []
    of_graph = read_manifest(exported.artifact.parent)["model.onnx"]
    of_plan = read_manifest(tmp_path)["model.rtx"]
    assert {name: of_plan[name] for name in ("weights", "onnx")} == {
        name: of_graph[name] for name in ("weights", "onnx")
    }
    vermin = [Path(sys.executable).with_name("vermin"), "-t=3.9-", "--no-tips"]
    files = [f"{name.replace('.', '/')}.py" for name in eval(modules)]
    files.append("export/references.py")  # what `benchmarks.engine` needs besides
    assert {"export/engine.py", "export/plan.py", "matting/files.py"} <= set(files)
    subprocess.run([*vermin, *files], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def references(
    seeded_weights: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("references") / "new"
    assert write_references([str(seeded_weights), "--data", str(data), "-o", str(folder)]) == 0
    return sorted(folder.iterdir())


def test_alphas_are_held_against_the_networks(
    exported: Exported,
    references: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """By ONNX Runtime in place of an engine, which needs a GPU."""
    monkeypatch.setattr("export.plan.WARMUP", 1)
    monkeypatch.setattr("export.plan.RUNS", 2)
    matte = onnx_matte(exported.artifact, "onnxruntime")
    assert measure(matte, references, "fp32").summary()["pictures"] == len(references)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [path.stem for path in references]
    assert all(float(line.split(": ")[1].split(" ms")[0]) > 0 for line in lines)

    def darker(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        alpha = matte(image, trimap)
        return np.where(trimap == 128, alpha // 2, alpha)

    def all_black(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        return np.zeros_like(trimap)

    with pytest.raises(ExportError, match=r"SAD is .* MSE is .* GRAD is .* CONN is .* alpha diff"):
        measure(darker, references[:1], "fp32")
    with pytest.raises(ExportError, match=r"the prediction is not 255 in \d+ pixels"):
        measure(all_black, references[:1], "fp32")


@pytest.fixture(params=["another", "array", "empty", "cut", "damaged"])
def no_reference(references: list[Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file that is none of those that the network's alphas are in."""
    content = bytearray(references[0].read_bytes())
    path = tmp_path / "none.npz"
    with path.open("wb") as file:
        if request.param == "another":
            np.savez(file, image=np.zeros(1))
        elif request.param == "array":
            np.save(file, np.zeros(1))
        elif request.param == "cut":
            file.write(content[:1000])
        elif request.param == "damaged":
            content[60:1000] = bytes(940)
            file.write(content)
    return path


def test_a_picture_that_is_none_is_named(no_reference: Path) -> None:
    with pytest.raises(ExportError, match=r"none\.npz: write it with python -m export\.parity"):
        read_reference(no_reference)


def test_the_benchmark_names_it_before_it_builds(
    no_reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "model.onnx").touch()
    options = ["-o", str(tmp_path / "out"), "--pictures", str(no_reference)]
    assert benchmark([str(tmp_path / "model.onnx"), *options]) == 1
    assert "none.npz: write it with python -m export.parity" in capsys.readouterr().err


def test_a_picture_that_an_engine_would_not_take_is_refused_before_it_is_built(
    exported: Exported, references: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["-o", str(tmp_path / "model.plan"), "--best", "1x64x64", "--largest", "1x64x64"]
    assert main([str(exported.artifact), *options, "--pictures", str(references[0])]) == 1
    assert "is 75x" in (said := capsys.readouterr().err)
    assert "expected 1x1 (--smallest) to 64x64 (--largest)" in said


def test_an_engine_that_cannot_be_proven_replaces_nothing(
    exported: Exported, references: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    try:
        find_gpu()
        pytest.skip("this machine has a GPU: the engine would run")
    except ExportError:
        pass
    plan = tmp_path / "model.rtx"
    plan.write_text("of yesterday")
    options = ["-o", str(plan), "--target", "tensorrt-rtx", "--precision", "fp32"]
    assert main([str(exported.artifact), *options, "--pictures", *map(str, references)]) == 1
    assert "export.plan: the engine cannot run here" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.rtx"]
    assert plan.read_text() == "of yesterday"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What builds an engine, at once."""
    build = create_autospec(build_engine, return_value=(b"engine", {"version": "10.13.3"}))
    monkeypatch.setattr("export.plan.build_engine", build)
    return build


@pytest.mark.usefixtures("built")
def test_tritons_config_fits_an_engine_that_it_will_serve(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / "dim" / FOR_TENSORRT
    config.parent.mkdir(parents=True)
    shutil.copy(TEMPLATE / FOR_TENSORRT, config)
    (tmp_path / "dim/1").mkdir()
    options = ["--best", "1x96x160", "--largest", "2x1088x1920"]
    assert main([str(exported.artifact), "-o", str(tmp_path / "dim/1/model.plan"), *options]) == 0
    assert "for Triton" not in capsys.readouterr().out
    parsed = text_format.Parse(config.read_text(), ModelConfig())
    assert parsed.max_batch_size == 2
    assert list(parsed.model_warmup[0].inputs["image"].dims) == [96, 160, 3]
    before = config.read_text()
    for elsewhere in ("dim/1/another.plan", "model.plan"):
        assert main([str(exported.artifact), "-o", str(tmp_path / elsewhere)]) == 0
        assert capsys.readouterr().out.endswith(
            "set max_batch_size: 8 and a warm-up of 1024x1024 in configs/tensorrt.pbtxt\n"
        )
    assert config.read_text() == before


def test_a_config_that_cannot_fit_is_found_before_an_engine_is_built(
    built: Mock, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / "dim" / FOR_TENSORRT
    config.parent.mkdir(parents=True)
    config.write_text("own")
    (tmp_path / "dim/1").mkdir()
    assert main([str(exported.artifact), "-o", str(tmp_path / "dim/1/model.plan")]) == 1
    assert "sets max_batch_size 0 times" in capsys.readouterr().err
    assert not built.called


@pytest.mark.parametrize(
    ("onnx", "code", "message"),
    # The parser's own words stand above.
    [("nowhere.onnx", 2, "No such file"), ("text.onnx", 1, "tensorrt-rtx refused the graph: ")],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, onnx: str, code: int, message: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    (tmp_path / "text.onnx").write_text("no graph")
    plan = tmp_path / "model.rtx"
    arguments = [str(tmp_path / onnx), "-o", str(plan), "--target", "tensorrt-rtx"]
    assert main([*arguments, "--precision", "fp16"]) == code
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("export.plan: ") and message in error
    assert not plan.exists()


@pytest.mark.parametrize(
    ("exported_in", "options", "code", "message"),
    [
        ("fp32", ["--precision", "fp16"], 1, "was exported in fp32, not in --precision fp16"),
        ("int8", [], 1, "was exported in int8: TensorRT takes fp32 or fp16"),
        (None, [], 1, "has its precision: give --precision"),
        ("fp32", ["-o", "{here}/nowhere/model.plan"], 2, "No such file or directory: '{here}/no"),
        ("fp32", ["-o", "{here}"], 2, "Is a directory: '{here}'"),
        ("fp32", ["--pictures", "{here}/nowhere.npz"], 2, "No such file or directory: "),
        (
            "fp32",
            ["--pictures", "{here}/model.onnx"],
            1,
            "model.onnx: write it with python -m export",
        ),
    ],
)
def test_mistakes_are_found_before_an_engine_is_built(
    exported_in: str | None,
    options: list[str],
    code: int,
    message: str,
    built: Mock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    onnx = tmp_path / "model.onnx"
    onnx.write_text("graph")
    if exported_in:
        entry = {"precision": exported_in, "files": {onnx.name: sha256(onnx)}}
        write_entry(tmp_path, onnx.name, entry)
    arguments = [option.format(here=tmp_path) for option in options]
    assert main([str(onnx), "-o", str(tmp_path / "model.plan"), *arguments]) == code
    error = capsys.readouterr().err
    assert message.format(here=tmp_path) in error and error.count("\n") == 1
    assert not built.called
    assert not (tmp_path / "model.plan").exists()


def test_precision_is_the_one_that_the_graph_was_exported_in(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    onnx.write_text("graph")
    entry = {"precision": "fp32", "files": {onnx.name: sha256(onnx)}}
    write_entry(tmp_path, onnx.name, entry)
    assert graph_precision(onnx, None) == graph_precision(onnx, "fp32") == "fp32"
    onnx.write_text("another graph, of which the manifest says nothing")
    assert graph_precision(onnx, "fp16") == "fp16"
