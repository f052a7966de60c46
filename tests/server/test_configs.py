"""Every configuration keeps the contract on the wire, and tritonserver picks the one it is told."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import InferenceServerException

from client.connection import PRIORITIES
from server.launcher import LaunchError, Server, launch

SHIPPED = Path(__file__).parents[2] / "model_repository" / "dim"
CONFIGS = [SHIPPED / "config.pbtxt", *sorted((SHIPPED / "configs").glob("*.pbtxt"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_contract(path: Path) -> None:
    config = text_format.Parse(path.read_text(), ModelConfig())

    def on_the_wire(tensors: list) -> list[tuple]:
        batch = [-1] if config.max_batch_size else []
        return [(t.name, DataType.Name(t.data_type), [*batch, *t.dims]) for t in tensors]

    assert config.name == "dim"
    assert on_the_wire(config.input) == [
        ("image", "TYPE_UINT8", [-1, -1, -1, 3]),
        ("trimap", "TYPE_UINT8", [-1, -1, -1, 1]),
    ]
    assert on_the_wire(config.output) == [("alpha", "TYPE_UINT8", [-1, -1, -1, 1])]
    assert config.instance_group and config.model_warmup
    # Triton skips a warm-up of 0, and takes 1 where a model has no batches.
    assert all(warmup.batch_size >= 1 for warmup in config.model_warmup)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_queues_are_bounded_and_interactive_requests_go_first(path: Path) -> None:
    """What these numbers do is tested in test_overload.py."""
    batching = text_format.Parse(path.read_text(), ModelConfig()).dynamic_batching
    assert batching.priority_levels == batching.default_priority_level == PRIORITIES["bulk"] == 2
    assert PRIORITIES["interactive"] == 1
    policy = batching.default_queue_policy
    assert policy.max_queue_size == 64
    assert policy.timeout_action == policy.REJECT and policy.default_timeout_microseconds > 0


def test_the_largest_image_is_as_large_as_the_readme_says() -> None:
    """Which the memory limits of the manifests are for."""
    config = text_format.Parse((SHIPPED / "config.pbtxt").read_text(), ModelConfig())
    megapixels = int(config.parameters["max_pixels"].string_value) / 1e6
    readme = (SHIPPED.parents[1] / "README.md").read_text()
    assert f"On a CPU, {megapixels:.1f} megapixels" in readme


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt"])
def test_native_config_is_picked_by_name(tiny_repository: Path, backend: str) -> None:
    """Here its backend is missing, and the error that says so shows that the file was read."""
    flags = [f"--model-config-name={backend}"]
    reason = f"unable to find backend library for backend '{backend}'"
    with pytest.raises(LaunchError, match=reason), launch(tiny_repository, flags=flags):
        pass


def test_custom_config_serves(
    tiny_repository: Path,
    infer: Callable[[Server, np.ndarray, np.ndarray], np.ndarray],
    random_pair: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> None:
    model = tiny_repository / "dim"
    config = text_format.Parse((model / "config.pbtxt").read_text(), ModelConfig())
    config.parameters["max_pixels"].string_value = "1024"
    del config.model_warmup[:]
    (model / "configs" / "small.pbtxt").write_text(text_format.MessageToString(config))
    with launch(tiny_repository, flags=["--model-config-name=small"]) as server:
        assert infer(server, *random_pair(32, 32)).shape == (1, 32, 32, 1)
        with pytest.raises(InferenceServerException, match="at most 1024"):
            infer(server, *random_pair(33, 32))
