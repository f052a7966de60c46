"""What tests of several rooms share: a server, and networks whose outputs are known."""

import functools
import itertools
import json
import os
import pickle
import platform
import runpy
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from server.launcher import Server, launch

# A shell starts background jobs with Ctrl-C ignored, and nohup what it starts with SIGHUP; children
# inherit that: programs under test must see both as from a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# As in model.py.
sys.modules.setdefault("openvino_telemetry", None)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The same few inputs in every run, so that a change is judged by what it does. New ones, and many:
# --hypothesis-profile=long
settings.register_profile(
    "default",
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long", settings.get_profile("default"), max_examples=100_000, derandomize=False
)
settings.load_profile("default")

MODEL_REPOSITORY = Path(__file__).parents[1] / "model_repository"
LONGEST = {
    "tests/benchmarks/test_report.py",
    "tests/client/test_page.py",
    "tests/client/test_page_in_browser.py",
    "tests/deploy/test_export_job.py",
    "tests/test_readme.py",
    "tests/train/test_losses.py",
    "tests/train/test_training.py",
}
"""Files that take more than a minute."""
Made = TypeVar("Made")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: at the end one process would run them, and the others none."""
    items.sort(key=lambda item: item.location[0] not in LONGEST)


@pytest.fixture(scope="session")
def once_for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Let one of pytest-xdist's workers make what all of them share and none changes."""
    of_all = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_all = of_all.parent

    def once(name: str, make: Callable[[Path], Made]) -> Made:
        """Return what `make` returned, which can be pickled, when it was given a new folder."""
        made = of_all / f"{name}.pickle"
        with FileLock(of_all / f"{name}.lock"):
            if not made.exists():
                content = pickle.dumps(make(tmp_path_factory.mktemp(name)))
                made.write_bytes(content)
            return pickle.loads(made.read_bytes())

    return once


@pytest.fixture(scope="session")
def shared_graph(once_for_all_workers: Callable) -> Callable:
    """In place of `build_graph`: one graph for all networks of a kind, with each one's weights.

    Tracing takes seconds, longer than the rest of a small export. Exports are compared with their
    own networks: what a graph had of another's weights would be found.
    """
    pytest.importorskip("onnxscript", reason="needs pip install -e '.[export]'")
    import onnx_ir

    from export.graph import PRECISIONS, build_graph
    from train.network import DeepImageMatting

    def build(network: DeepImageMatting, precision: str) -> onnx_ir.Model:
        refiner = network.refiner is not None

        def trace(folder: Path) -> Path:
            model = build_graph(DeepImageMatting(refiner).eval(), precision)
            onnx_ir.save(model, folder / "graph.onnx", external_data="weights")
            return folder / "graph.onnx"

        kind = f"graph_in_{precision}" + "_with_refiner" * refiner
        model = onnx_ir.load(once_for_all_workers(kind, trace))
        for name, value in network.state_dict().items():
            own = value.to(PRECISIONS[precision]).numpy()
            model.graph.initializers[name].const_value = onnx_ir.tensor(own, name=name)
        return model

    return build


@pytest.fixture
def traced_once(shared_graph: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports take the shared graph of their kind."""
    monkeypatch.setattr("export.export.build_graph", shared_graph)


@pytest.fixture
def narrow_network(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give networks a sixteenth of the channels; return a PYTHONPATH with which programs do so."""
    import train.network

    monkeypatch.setattr(train.network, "conv", train.network.conv)  # what is put back
    folder = Path(__file__).with_name("narrow")
    runpy.run_path(str(folder / "sitecustomize.py"))
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if platform.system() != "Linux":
        pytest.skip("tritonserver runs on Linux only")
    with launch(MODEL_REPOSITORY) as running:
        yield running


@pytest.fixture(scope="session")
def quick_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configuration with a model that needs no engine: its alpha is the trimap."""
    model = tmp_path_factory.mktemp("quick") / "dim"
    (model / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("server") / "gated.py", model / "1/model.py")
    shutil.copy(MODEL_REPOSITORY / "dim/config.pbtxt", model)
    return model.parent


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Wait until something is true; a minute is too long."""

    def wait(condition: Callable[[], bool], what: str = "it came true") -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return listener.getsockname()[1]

    return find


class JumpingClock(NamedTuple):
    """The wall clock of the programs that are started with this environment."""

    environment: dict[str, str]
    jump: Callable[[], None]
    """From two days ahead to two days ago, or back."""


@pytest.fixture
def jumping_clock(tmp_path: Path) -> JumpingClock:
    # The one for programs with threads: under the other, which PyPI has, they read torn times.
    name = "lib/*/faketime/libfaketimeMT.so.1"
    libraries = [*Path(sys.prefix).glob(f"faketime/usr/{name}"), *Path("/usr").glob(name)]
    if not libraries:
        pytest.skip("needs libfaketime: sh tests/run.sh fetches it, or apt-get install libfaketime")
    clock, partial = tmp_path / "clock", tmp_path / "partial"
    clock.write_text("+0")
    days = itertools.cycle((2, -2))

    def jump() -> None:
        partial.write_text(f"{next(days):+}d")
        partial.replace(clock)

    environment = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    return JumpingClock(environment, jump)


@pytest.fixture(scope="session")
def oracle_state() -> Callable[[int], dict[str, np.ndarray]]:
    """Weights of stage 1 or 3, for which `tests/data/oracle` holds mmediting's outputs."""
    return functools.cache(draw_weights)


@pytest.fixture(scope="session")
def oracle_network(oracle_state: Callable) -> Callable:
    """A new network with these weights, in evaluation mode."""
    torch = pytest.importorskip("torch")
    from train.network import DeepImageMatting

    def build(stage: int) -> DeepImageMatting:
        with torch.device("meta"):
            network = DeepImageMatting(refiner=stage > 1)
        state = {name: torch.tensor(value) for name, value in oracle_state(stage).items()}
        network.load_state_dict(state, assign=True)
        return network.eval()

    return build


def draw_weights(stage: int) -> dict[str, np.ndarray]:
    """Draw the weights from their seed, with NumPy's frozen legacy generator.

    Every filter but the first layers' has mean zero, and the decoder's are smooth: alpha then
    varies over the picture. Drawn in the order in which the reference outputs' weights were.
    """
    folder = Path(__file__).parent / "data/oracle/weights"
    shapes = json.loads((folder / "state_dict.json").read_text())[f"stage{stage}"]
    gains = json.loads((folder / "gains.json").read_text())
    draw = np.random.RandomState({1: 1001, 3: 2003}[stage]).standard_normal
    line = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.1**2))
    smooth = np.outer(line, line)
    smooth_scale = np.sqrt((smooth**2).mean())
    state = {}
    for name, shape in shapes:
        layer, kind = name.rsplit(".", 1)
        value = draw(shape)
        if kind == "bias":
            value *= 0.05
        else:
            if layer not in ("backbone.encoder.layer1.0", "refiner.refine_conv1"):
                value -= value.mean(axis=(1, 2, 3), keepdims=True)
            if shape[2] == 5:
                weight = draw((*shape[:2], 1, 1))
                weight -= weight.mean(axis=1, keepdims=True)
                value = weight * smooth / smooth_scale + 0.4 * value
            value *= np.sqrt(2 / np.prod(shape[1:])) * gains.get(layer, 1.0)
        state[name] = value.astype(np.float32)
    return state


@pytest.fixture(scope="session")
def descendants() -> Callable[[int], list[int]]:
    """Processes that a process started, and those that these started."""

    def find(pid: int) -> list[int]:
        threads = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for thread in threads for child in thread.read_text().split()]
        return [*children, *(below for child in children for below in find(child))]

    return find


@pytest.fixture(scope="session")
def wait_until_gone() -> Callable[[list[int]], bool]:
    """Wait until none of some processes runs, for at most half a minute."""

    def is_running(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        except FileNotFoundError:
            return False

    def wait(pids: list[int]) -> bool:
        deadline = time.monotonic() + 30
        while any(map(is_running, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not any(map(is_running, pids))

    return wait
