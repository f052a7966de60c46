"""Engines where there is no PyTorch: what is asked of the machine, and what is said of alphas."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.export import Exported
from export.parity import main as write_references
from export.plan import main, measure
from export.runtime import onnx_matte

ROOT = Path(__file__).parents[2]

WITHOUT = """
import sys
for missing in ("torch", "onnx", "onnxruntime", "cv2", "matting", "train"):
    sys.modules[missing] = None  # to import it is an error
from export.plan import main
code = main(sys.argv[1:])
print([name for name in sys.modules if name.startswith("export.")])
sys.exit(code)
"""


def test_an_engine_is_built_with_little_more_than_tensorrt(
    exported: Exported, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install -e '.[tensorrt-rtx]'")
    plan = tmp_path / "model.rtx"
    options = ["-o", plan, "--target", "tensorrt-rtx", "--precision", "fp32"]
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
    assert plan.stat().st_size > 50_000_000
    check = [Path(sys.executable).with_name("vermin"), "-t=3.9-", "--no-tips"]
    files = [f"{name.replace('.', '/')}.py" for name in eval(modules)]
    assert {"export/engine.py", "export/plan.py"} <= set(files)
    subprocess.run([*check, *files], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def references(
    seeded_weights: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("references") / "new"
    assert write_references([str(seeded_weights), "--data", str(pairs), "-o", str(folder)]) == 0
    return sorted(folder.iterdir())


def test_alphas_are_held_against_the_networks(
    exported: Exported, references: list[Path], capsys: pytest.CaptureFixture
) -> None:
    """By ONNX Runtime in place of an engine, which needs a GPU."""
    matte = onnx_matte(exported.artifact, "onnxruntime")
    assert measure(matte, references, 5e-4) == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [path.stem for path in references]
    assert all(float(line.split(": ")[1].split(" ms")[0]) > 0 for line in lines)

    def brighter(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        return matte(image, trimap) // 2

    complaints = measure(brighter, references[:1], 5e-4)
    assert len(complaints) == 1 and complaints[0].startswith(f"{references[0].stem} by 0.")


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
    assert main(arguments) == code
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("export.plan: ") and message in error
    assert not plan.exists()
