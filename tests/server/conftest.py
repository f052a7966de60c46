"""The shipped configuration and model.py with a tiny network whose every byte can be foretold."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import np_to_triton_dtype

from server.launcher import Server, launch

Pair = tuple[np.ndarray, np.ndarray]
"""Image and trimap as they go over the wire, uint8, N x H x W x 3 and N x H x W x 1."""

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "model_repository" / "dim"
MAX_PIXELS = 1024 * 512
"""Of the image padded to multiples of 32: 999 x 500 just fits."""
MAX_WIDTH = 999
"""A wider image makes the tiny network itself fail, as the real one does when memory runs out."""


def write_tiny_network(path: Path) -> None:
    """alpha = max(red, trimap); fails for images wider than MAX_WIDTH."""

    def constant(name: str, value: list[int], dtype: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, dtype), name)

    def tensor(name: str, channels: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", channels])

    graph = helper.make_graph(
        [
            # ONNX Runtime 1.23 neither adds nor compares bytes.
            helper.make_node("Cast", ["image"], ["colours"], to=TensorProto.INT32),
            helper.make_node("Cast", ["trimap"], ["least"], to=TensorProto.INT32),
            helper.make_node("Slice", ["colours", "0", "1", "3"], ["red"]),
            helper.make_node("Shape", ["image"], ["width"], start=2, end=3),
            # Of a wider image no longer one for each column, which no engine can add.
            helper.make_node("Slice", ["zeros", "0", "width", "0"], ["column"]),
            helper.make_node("Add", ["red", "column"], ["sum"]),
            helper.make_node("Max", ["sum", "least"], ["most"]),
            helper.make_node("Cast", ["most"], ["alpha"], to=TensorProto.UINT8),
        ],
        "tiny",
        [tensor("image", 3), tensor("trimap", 1)],
        [tensor("alpha", 1)],
        [
            constant("0", [0], np.int64),
            constant("1", [1], np.int64),
            constant("3", [3], np.int64),
            numpy_helper.from_array(np.zeros((MAX_WIDTH, 1), np.int32), "zeros"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model folder with the tiny network, and with limits that tests can reach."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(SHIPPED / "configs", folder / "dim" / "configs")
    (folder / "dim" / "1").mkdir()
    shutil.copy(SHIPPED / "1" / "model.py", folder / "dim" / "1")
    write_tiny_network(folder / "dim" / "1" / "model.onnx")
    config = text_format.Parse((SHIPPED / "config.pbtxt").read_text(), ModelConfig())
    config.parameters["max_pixels"].string_value = str(MAX_PIXELS)
    (folder / "dim" / "config.pbtxt").write_text(text_format.MessageToString(config))
    return folder


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path) -> Iterator[Server]:
    with launch(tiny_repository) as running:
        yield running


@pytest.fixture
def start(quick_repository: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Run `python -m server`, on free ports, and wait for the line that says it is ready."""
    started = []

    def run(*arguments: str, repository: Path = quick_repository) -> subprocess.Popen:
        command = [sys.executable, "-m", "server", "--repository", str(repository)]
        ports = ["--grpc-port=0", "--http-port=0", "--metrics-port=0"]
        process = subprocess.Popen(
            [*command, *ports, *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline().startswith("ready: gRPC 127.0.0.1:")
        return process

    yield run
    for process in started:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="session")
def random_pair() -> Callable[..., Pair]:
    def make(height: int, width: int, count: int = 1, seed: int = 0) -> Pair:
        random = np.random.default_rng(seed)
        shape = (count, height, width)
        image = random.integers(0, 256, (*shape, 3), np.uint8)
        return image, random.choice(np.array([0, 128, 255], np.uint8), (*shape, 1))

    return make


@pytest.fixture(scope="session")
def infer() -> Callable[[Server, np.ndarray, np.ndarray], np.ndarray]:
    """Send two arrays as they are, of whatever type and shape, and return alpha."""

    def ask(server: Server, image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        inputs = []
        for name, array in (("image", image), ("trimap", trimap)):
            tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        with grpc.InferenceServerClient(server.grpc_url) as client:
            return client.infer("dim", inputs).as_numpy("alpha")

    return ask
