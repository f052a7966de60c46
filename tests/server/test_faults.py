"""What is killed or damaged on the server's side: refused in words, and whole after a new start."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import numpy as np
import pytest

from client.connection import Matte
from client.request import Request
from server.launcher import SHARED_MEMORY, LaunchError, launch

IMAGE, TRIMAP = np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 128, np.uint8)


@pytest.fixture
def gated_model(quick_repository: Path, tmp_path: Path) -> Path:
    """The folder of a model that holds requests while `closed` lies in it: see gated.py."""
    ignored = shutil.ignore_patterns("order")  # of other tests' requests
    shutil.copytree(quick_repository, tmp_path / "models", ignore=ignored)
    return tmp_path / "models/dim"


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("tritonserver", "tritonserver ended by itself with exit code -9"),
        ("backend", "a process that ran a model was killed, perhaps for lack of memory"),
    ],
)
def test_killed_with_a_request_under_way(
    victim: str,
    reason: str,
    gated_model: Path,
    start: Callable[..., subprocess.Popen],
    descendants: Callable[[int], list[int]],
    wait_until_gone: Callable[[list[int]], bool],
    wait_until: Callable[[Callable[[], bool]], None],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    """The command ends and says why, whoever watches it starts it anew, the client sends again."""
    closed, order = gated_model / "closed", gated_model / "order"
    port = free_port()
    command = start(f"--grpc-port={port}", repository=gated_model.parent)
    closed.touch()
    (prefix,) = (folder.name for folder in tmp_path.glob("tritonserver-*"))
    assert list(SHARED_MEMORY.glob(f"{prefix}*"))
    tritonserver, backend = descendants(command.pid)
    request = Request()
    with Matte(f"127.0.0.1:{port}", timeout=200) as matte, ThreadPoolExecutor() as pool:
        answer = pool.submit(matte.alpha, IMAGE, TRIMAP, request=request)
        wait_until(lambda: request.id in order.read_text())
        os.kill(tritonserver if victim == "tritonserver" else backend, signal.SIGKILL)
        errors = command.communicate(timeout=60)[1]
        assert (command.returncode, errors.splitlines()[-1]) == (1, f"error: {reason}")
        assert wait_until_gone([tritonserver, backend])
        assert not list(SHARED_MEMORY.glob(f"{prefix}*"))
        closed.unlink()
        start(f"--grpc-port={port}", repository=gated_model.parent)
        np.testing.assert_array_equal(answer.result(timeout=120), TRIMAP)
    assert order.read_text().split() == [request.id] * 2


def test_what_is_under_way_is_answered_before_the_end(
    gated_model: Path,
    infer: Callable[..., np.ndarray],
    random_pair: Callable[..., tuple[np.ndarray, np.ndarray]],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    """Not by our client, which would send again what was cut off."""
    closed, order = gated_model / "closed", gated_model / "order"
    image, trimap = random_pair(8, 8)
    with ThreadPoolExecutor() as pool:
        with launch(gated_model.parent) as server:
            begun = len(order.read_text())
            closed.touch()
            answer = pool.submit(infer, server, image, trimap)
            wait_until(lambda: len(order.read_text()) > begun)
            Timer(2, closed.unlink).start()
        np.testing.assert_array_equal(answer.result(), trimap)


def test_clock_that_jumps_while_requests_wait(
    gated_model: Path,
    jumping_clock: NamedTuple,
    wait_until: Callable[[Callable[[], bool]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server's, by four days: none has waited in the queue for too long."""
    closed, order = gated_model / "closed", gated_model / "order"
    requests = [Request() for _ in range(12)]  # one is run or eight are, the others wait
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            for name, value in jumping_clock.environment.items():
                patch.setenv(name, value)
            server = stack.enter_context(launch(gated_model.parent))
        closed.touch()
        matte = stack.enter_context(Matte(server.grpc_url, timeout=100))
        pool = stack.enter_context(ThreadPoolExecutor(len(requests)))
        answers = [pool.submit(matte.alpha, IMAGE, TRIMAP, request=r) for r in requests]
        wait_until(lambda: bool(order.read_text().split()))
        for _ in range(4):
            jumping_clock.jump()
            time.sleep(0.2)
        closed.unlink()
        for answer in answers:
            np.testing.assert_array_equal(answer.result(), TRIMAP)
    assert sum(request.rejections for request in requests) == 0
    assert sorted(order.read_text().split()) == sorted(request.id for request in requests)


def test_damaged_files_are_refused(tiny_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    version = tmp_path / "dim/1"
    (version / "weights.safetensors").write_bytes(bytes(100))
    whole = {name: (version / name).read_bytes() for name in ("model.onnx", "weights.safetensors")}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in whole.items()}
    (version / "manifest.json").write_text(json.dumps({"model.onnx": {"files": files}}))
    with launch(tmp_path):
        pass
    # Half copied; and whole in size, where ONNX Runtime would take the weights as they come.
    for damaged, size in (
        ("model.onnx", 50),
        ("weights.safetensors", 50),
        ("weights.safetensors", 100),
    ):
        (version / damaged).write_bytes(whole[damaged][: size - 1] + b"x")
        with (
            pytest.raises(LaunchError, match=f"{damaged} is not the file that manifest.json names"),
            launch(tmp_path),
        ):
            pass
        (version / damaged).write_bytes(whole[damaged])


def test_a_repository_of_an_engine_alone_says_how_to_start(
    tiny_repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    version = tmp_path / "dim/1"
    (version / "model.onnx").rename(version / "model.plan")
    entry = {"target": "tensorrt", "files": {}}
    (version / "manifest.json").write_text(json.dumps({"model.plan": entry}))
    reason = "exported for tensorrt only: start with --model-config-name=tensorrt"
    with pytest.raises(LaunchError, match=reason), launch(tmp_path):
        pass
