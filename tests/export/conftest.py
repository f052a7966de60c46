"""One export of the seeded network, shared by the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="needs pip install -e '.[export]'")

from export.export import Exported, export
from export.parity import Picture, read_pictures
from matting.images import write_image
from train.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def seeded_weights(once_for_all_workers: Callable, oracle_network: Callable) -> Path:
    """Stage 3 weights drawn from a seed, stored as FP16 as the default's are."""

    def save(folder: Path) -> Path:
        save_checkpoint(oracle_network(3), folder / "seeded.safetensors", {})
        return folder / "seeded.safetensors"

    return once_for_all_workers("seeded", save)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own pictures, cut down to the surroundings of their first unknown pixels."""
    folder = tmp_path_factory.mktemp("data")
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
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(name: str, capability: str) -> None:
        command = folder / "nvidia-smi"
        command.write_text(f"#!/bin/sh\necho '{name}, {capability}, 570.1'\n")
        command.chmod(0o755)

    return install


@pytest.fixture(scope="session")
def exported(
    once_for_all_workers: Callable, shared_graph: Callable, seeded_weights: Path, data: Path
) -> Exported:
    def write(folder: Path) -> Exported:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("export.export.build_graph", shared_graph)
            return export(seeded_weights, folder / "models", pictures=data)

    return once_for_all_workers("exported", write)


@pytest.fixture(scope="session")
def pictures(data: Path) -> list[Picture]:
    return list(read_pictures(data))
