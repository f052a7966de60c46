"""What the benchmarks' tests measure, and one report of real, quick measurements."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from export.repository import CONFIG, TEMPLATE
from matting.images import read_gray, read_image, write_image
from server.launcher import launch

ORACLE = Path(__file__).parents[1] / "data/oracle/infer"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, oracle_network: Callable) -> Path:
    """A checkpoint of the network whose outputs are known."""
    from train.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp("weights") / "seeded.safetensors"
    save_checkpoint(oracle_network(3), path, {})
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture of 75 x 90 pixels, its trimap and its true alpha."""
    folder = tmp_path_factory.mktemp("data")
    reads = {"image": ("merged", read_image), "trimap": ("trimap", read_gray)}
    for kind, (name, read) in (reads | {"alpha": ("alpha", read_gray)}).items():
        (folder / kind).mkdir()
        pixels = read(ORACLE / f"b_353x470_{name}.png")[100:175, 150:240]
        write_image(folder / kind / "corner.png", pixels)
    return folder


@pytest.fixture
def quick_copy(tmp_path: Path, quick_repository: Path) -> Path:
    """A copy of `quick_repository` that a test may change."""
    return shutil.copytree(quick_repository, tmp_path / "models")


@pytest.fixture(scope="session")
def report(once_for_all_workers: Callable, shared_graph: Callable) -> Path:
    """The folder of a report on the default model, without parity, which has its own test.

    The model is version 2 of its repository, and version 1 is empty.
    """
    from benchmarks.__main__ import main

    def measure(folder: Path) -> Path:
        model = folder / "models/dim"
        (model / "1").mkdir(parents=True)
        (model / "2").symlink_to(TEMPLATE / "1")
        shutil.copy(TEMPLATE / CONFIG, model)
        names = ["latency", "throughput", "connectivity"]
        command = ["report", "--quick", "--repository", str(model.parent), "-o", str(folder)]
        with pytest.MonkeyPatch.context() as patch, launch(model.parent) as server:
            command += ["--url", server.grpc_url]
            patch.setattr("export.export.build_graph", shared_graph)
            assert main([*command, "--only", *names]) == 0
        return folder

    return once_for_all_workers("report", measure)
