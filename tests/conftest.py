"""What tests of several rooms share: one real server with the repository's default model."""

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.launcher import Server, launch

MODEL_REPOSITORY = Path(__file__).parents[1] / "model_repository"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if platform.system() != "Linux":
        pytest.skip("tritonserver runs on Linux only")
    with launch(MODEL_REPOSITORY) as running:
        yield running
