"""One export of the seeded network, shared by the tests: it takes a minute."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnxscript", reason="needs pip install -e '.[export]'")

from export.export import Exported, export
from export.parity import Picture, read_pictures
from train.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def seeded_weights(oracle_network: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 3 weights drawn from a seed, stored as FP16 as the default's are."""
    path = tmp_path_factory.mktemp("weights") / "seeded.safetensors"
    save_checkpoint(oracle_network(3), path, {})
    return path


@pytest.fixture(scope="session")
def exported(seeded_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(seeded_weights, tmp_path_factory.mktemp("served") / "models")


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    return list(read_pictures())
