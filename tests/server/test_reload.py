"""A new version beside the old one: the server takes it up under load, and no request fails.

`python -m server` looks whether a process that ran a model was killed: those of a version that was
taken out of service end by themselves, and that of an empty version never served, which are no
reasons to end.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as grpc
from onnx import TensorProto, helper

from server.launcher import UNNOTICED

CLIENTS = 4


def write_other_network(path: Path) -> None:
    """alpha = the trimap."""
    image, trimap, alpha = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", channels])
        for name, channels in (("image", 3), ("trimap", 1), ("alpha", 1))
    )
    node = helper.make_node("Identity", ["trimap"], ["alpha"])
    graph = helper.make_graph([node], "other", [image, trimap], [alpha])
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def test_a_new_version_under_load(
    tiny_repository: Path,
    tmp_path: Path,
    start: Callable[..., subprocess.Popen],
    descendants: Callable[[int], list[int]],
    wait_until_gone: Callable[[list[int]], bool],
    wait_until: Callable[..., None],
    free_port: Callable[[], int],
    random_pair: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> None:
    models, staged = tmp_path / "models", tmp_path / "staged"
    shutil.copytree(tiny_repository, models)
    # Whole before it is in its place: both folders are on one file system.
    shutil.copytree(models / "dim/1", staged)
    write_other_network(staged / "model.onnx")
    image, trimap = random_pair(24, 24)
    answers = {"1": np.maximum(image[..., :1], trimap), "2": trimap}
    counts = Counter[str]()
    counting, over = threading.Lock(), threading.Event()

    def send(client: grpc.InferenceServerClient) -> None:
        """Not through our client, which would send again what failed."""
        inputs = [
            grpc.InferInput(name, array.shape, "UINT8").set_data_from_numpy(array)
            for name, array in (("image", image), ("trimap", trimap))
        ]
        while not over.is_set():
            answer = client.infer("dim", inputs, client_timeout=60)
            version = answer.get_response().model_version
            np.testing.assert_array_equal(answer.as_numpy("alpha"), answers[version])
            with counting:
                counts[version] += 1

    def wait_for(version: str) -> None:
        enough = counts[version] + 50
        wait_until(lambda: counts[version] >= enough, f"50 answers of version {version}")

    port = free_port()
    flags = ["--", "--model-control-mode=poll", "--repository-poll-secs=1"]
    command = start(f"--grpc-port={port}", *flags, repository=models)
    tritonserver, *first = descendants(command.pid)
    with (
        grpc.InferenceServerClient(f"127.0.0.1:{port}") as client,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        load = [pool.submit(send, client) for _ in range(CLIENTS)]
        wait_for("1")
        staged.rename(models / "dim/2")
        wait_for("2")
        assert wait_until_gone(first)
        (models / "dim/2").rename(staged)  # and back
        wait_for("1")
        time.sleep(3)  # the command looks every second
        (serving,) = descendants(tritonserver)
        (models / "dim/2").mkdir()  # empty
        wait_until(lambda: len(descendants(tritonserver)) == 2)
        time.sleep(UNNOTICED + 2)
        wait_for("1")
        over.set()
        for sender in load:
            sender.result()
    assert command.poll() is None and tritonserver in descendants(command.pid)
    os.kill(serving, signal.SIGKILL)
    assert command.wait(timeout=60) == 1
