"""Nothing is reported to the makers of what is used. Of MNN see tests/export/test_mnn.py."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from server.launcher import launch

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "model_repository/dim"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which they would keep an id before they report anything."""
    # With these they report nothing, or keep the id elsewhere.
    for name in ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_server_reports_nothing(
    engine: str, home: Path, tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(tiny_repository, repository, dirs_exist_ok=True)
    file = repository / "dim/config.pbtxt"
    config = text_format.Parse(file.read_text(), ModelConfig())
    config.parameters["engine"].string_value = engine
    file.write_text(text_format.MessageToString(config))
    with launch(repository):
        assert not list(home.iterdir())


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_an_export_reports_nothing(target: str, home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from export.runtime import onnx_matte; "
        "onnx_matte(Path(sys.argv[1]), sys.argv[2])"
    )
    model = SHIPPED / "1/model.onnx"
    subprocess.run([sys.executable, "-c", program, model, target], check=True, cwd=ROOT)
    assert not list(home.iterdir())
