"""One export of the seeded network, shared by the tests: tracing it takes most of their time."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="needs pip install -e '.[export]'")

from export.export import Exported, export
from export.manifest import WEIGHTS
from export.parity import Picture, read_pictures
from matting.images import write_image
from train.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def seeded_weights(oracle_network: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 3 weights drawn from a seed, stored as FP16 as the default's are."""
    path = tmp_path_factory.mktemp("weights") / "seeded.safetensors"
    save_checkpoint(oracle_network(3), path, {})
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own pictures, cut down to the surroundings of their first unknown pixels."""
    folder = tmp_path_factory.mktemp("pairs")
    for kind in ("image", "trimap", "alpha"):
        (folder / kind).mkdir()
    for picture in read_pictures():
        y, x = np.argwhere(picture.trimap == 128)[0]
        here = np.s_[y : y + 75, max(0, x - 40) : x + 50]
        for kind in ("image", "trimap", "alpha"):
            write_image(folder / kind / f"{picture.name}.png", getattr(picture, kind)[here])
    return folder


@pytest.fixture
def nvidia_smi(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable:
    """Give this machine a GPU of some name and compute capability, as far as nvidia-smi goes."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def install(name: str, capability: str) -> None:
        command = folder / "nvidia-smi"
        command.write_text(f"#!/bin/sh\necho '{name}, {capability}, 570.1'\n")
        command.chmod(0o755)

    return install


@pytest.fixture(scope="session")
def exported(
    seeded_weights: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    repository = tmp_path_factory.mktemp("served") / "models"
    return export(seeded_weights, repository, pictures=pairs)


@pytest.fixture(scope="session")
def pictures(pairs: Path) -> list[Picture]:
    return list(read_pictures(pairs))


@pytest.fixture
def traced_before(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports of the seeded network take the graph that `exported` has of it."""
    graph = exported.artifact

    def copy(network: object, weights: Path, precision: str, folder: Path, ranges: object) -> Path:
        for name in (graph.name, WEIGHTS):
            shutil.copy(graph.with_name(name), folder)
        return folder / graph.name

    monkeypatch.setattr("export.export.write_onnx", copy)
