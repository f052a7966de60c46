"""The queues of the shipped configurations: bounded, two levels, and what the client makes of them.

Two of them, one that batches and one that does not, with a model that waits until it is told to go.
"""

import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup
from tritonclient.utils import InferenceServerException

from client.connection import PRIORITIES, Matte
from client.errors import ServerBusyError
from client.matte import main
from client.request import Request
from matting.images import write_image
from server.launcher import Server, launch

SHIPPED = Path(__file__).parents[2] / "model_repository/dim"
IMAGE, TRIMAP = np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 128, np.uint8)


@dataclass
class Gate:
    """A server whose model answers only while the gate is open."""

    server: Server
    model: Path
    queue_size: int
    wait_until: Callable[..., None]

    def __enter__(self) -> "Gate":
        self.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def close(self) -> None:
        (self.model / "closed").touch()

    def open(self) -> None:
        (self.model / "closed").unlink(missing_ok=True)

    def order(self) -> list[str]:
        """The ids of the requests that the model was given."""
        order = self.model / "order"
        return order.read_text().split() if order.exists() else []

    def waiting(self) -> int:
        """Requests in the queue, as the metrics tell."""
        with urllib.request.urlopen(f"http://{self.server.metrics_url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        (count,) = (x for x in lines if x.startswith("nv_inference_pending_request_count{"))
        return int(float(count.split()[-1]))

    def send(self, count: int, priority: str, name: str) -> list[Future]:
        """Send so many requests and return their answers to come."""
        answers: list[Future] = [Future() for _ in range(count)]
        inputs = []
        for tensor, array in (("image", IMAGE[None]), ("trimap", TRIMAP[None, ..., None])):
            inputs.append(grpc.InferInput(tensor, array.shape, "UINT8").set_data_from_numpy(array))
        for i, answer in enumerate(answers):
            self.client.async_infer(
                "dim",
                inputs,
                lambda result, error, answer=answer: (
                    answer.set_exception(error) if error else answer.set_result(result)
                ),
                request_id=f"{name}-{i}",
                priority=PRIORITIES[priority],
            )
        return answers

    @property
    def client(self) -> grpc.InferenceServerClient:
        if not hasattr(self, "_client"):
            self._client = grpc.InferenceServerClient(self.server.grpc_url)
        return self._client

    def occupy(self) -> Future:
        """Keep the model busy, so that all that follows has to wait."""
        (answer,) = self.send(1, "bulk", "first")
        self.wait_until(lambda: self.order()[-1:] == ["first-0"])
        return answer

    def fill(self) -> list[Future]:
        """Send bulk until nothing more is taken, and return what was.

        Triton takes the next batch out of the queue some time before the model is free for it.
        """
        taken: list[Future] = []
        while True:
            answers = self.send(16, "bulk", "bulk")
            turned_away, pending = wait(answers, timeout=1)
            for answer in turned_away:
                with pytest.raises(InferenceServerException, match="Exceeds maximum queue size"):
                    answer.result()
            if not pending:
                return taken
            taken += pending


@pytest.fixture(scope="module", params=["config", "configs/openvino"])
def gate(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., None],
) -> Iterator[Gate]:
    config = text_format.Parse((SHIPPED / f"{request.param}.pbtxt").read_text(), ModelConfig())
    config.backend, config.default_model_filename = "python", "model.py"
    config.instance_group[0].kind = ModelInstanceGroup.KIND_CPU
    # Triton empties a queue by halves of seconds: a short one is soon full and soon empty.
    config.dynamic_batching.default_queue_policy.max_queue_size = 8
    with serve(config, tmp_path_factory.mktemp("gate"), wait_until) as gate:
        yield gate


@contextmanager
def serve(config: ModelConfig, repository: Path, wait_until: Callable[..., None]) -> Iterator[Gate]:
    model = repository / "dim"
    (model / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("gated.py"), model / "1/model.py")
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))
    with launch(repository) as server:
        size = config.dynamic_batching.default_queue_policy.max_queue_size
        yield Gate(server, model, size, wait_until)


def test_interactive_requests_overtake_bulk(gate: Gate) -> None:
    with gate:
        answers = [gate.occupy()]
        answers += gate.send(3, "bulk", "bulk")
        answers += gate.send(2, "interactive", "interactive")
        gate.wait_until(lambda: gate.waiting() >= 5)
    for answer in answers:
        answer.result(timeout=60)
    # Of one kind, the order is that of their arrival, which gRPC does not promise. Triton takes the
    # next out of the queue before the model is free for it: one bulk may be ahead.
    kinds = [name.split("-")[0] for name in gate.order()[-5:]]
    assert kinds[kinds[0] == "bulk" :][:2] == ["interactive"] * 2


def test_client_comes_again_when_the_queue_is_full(gate: Gate) -> None:
    request = Request()
    with (
        Matte(gate.server.grpc_url, timeout=120) as matte,
        Matte(gate.server.grpc_url, timeout=1.5) as impatient,
        Matte(gate.server.grpc_url, priority="interactive") as urgent,
        ThreadPoolExecutor() as pool,
        gate,
    ):
        answers = [gate.occupy(), *gate.fill()]
        in_the_queue = gate.waiting()
        assert gate.queue_size <= in_the_queue <= gate.queue_size + 8  # and a batch
        with pytest.raises(ServerBusyError, match=r"was too busy for 1\.5 s .*--timeout"):
            impatient.alpha(IMAGE, TRIMAP)
        patient = pool.submit(matte.alpha, IMAGE, TRIMAP, request=request)
        gate.wait_until(lambda: request.rejections >= 2)
        # The other level has a queue of its own.
        overtaking = pool.submit(urgent.alpha, IMAGE, TRIMAP)
        gate.wait_until(lambda: gate.waiting() > in_the_queue)
        gate.open()
        np.testing.assert_array_equal(patient.result(), TRIMAP)
        np.testing.assert_array_equal(overtaking.result(), TRIMAP)
    for answer in answers:
        answer.result(timeout=60)
    assert request.id in gate.order()


def test_what_waits_too_long_is_sent_again_and_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    wait_until: Callable[..., None],
) -> None:
    """Through the command line, whose summary tells of it."""
    config = text_format.Parse((SHIPPED / "config.pbtxt").read_text(), ModelConfig())
    config.dynamic_batching.default_queue_policy.default_timeout_microseconds = 100_000
    monkeypatch.chdir(tmp_path)
    for folder, picture in (("photos", IMAGE), ("trimaps", TRIMAP)):
        Path(folder).mkdir()
        write_image(f"{folder}/a.png", picture)
    serving = serve(config, tmp_path / "models", wait_until)
    with serving as gate, ThreadPoolExecutor() as pool, gate:
        gate.occupy()
        arguments = ["photos", "--trimaps", "trimaps", "-o", "out", "--url", gate.server.grpc_url]
        code = pool.submit(main, arguments)
        gate.wait_until(lambda: gate.waiting() == 1)
        time.sleep(0.2)  # the queue's timeout, which is looked at when the model is free again
        gate.open()
        assert code.result() == 0
    assert capsys.readouterr().out == (
        "1 written, 0 already there, 0 failed; requests that a full server turned away: 1\n"
    )
