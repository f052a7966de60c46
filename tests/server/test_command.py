"""`python -m server`: runs until it is told to stop, and ends with its server however it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.matte import Matte

ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen]


@pytest.mark.parametrize(
    ("signal_", "repository"),
    [
        (signal.SIGINT, "tiny_repository"),
        (signal.SIGTERM, "quick_repository"),
        (signal.SIGHUP, "quick_repository"),
    ],
)
def test_stops_cleanly(
    start: Start,
    tmp_path: Path,
    signal_: signal.Signals,
    repository: str,
    request: pytest.FixtureRequest,
    descendants: Callable[[int], list[int]],
    wait_until_gone: Callable[[list[int]], bool],
) -> None:
    command = start(repository=request.getfixturevalue(repository))
    processes = descendants(command.pid)
    assert len(processes) == 2
    command.send_signal(signal_)
    errors = command.communicate()[1]
    assert command.returncode == 0
    assert wait_until_gone(processes)
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_a_closed_terminal_sends_two_signals(start: Start) -> None:
    command = start()
    command.send_signal(signal.SIGHUP)
    for line in command.stderr:
        if "Waiting for in-flight requests" in line:
            break
    command.send_signal(signal.SIGHUP)
    rest = command.communicate()[1]
    assert command.returncode == 0
    assert "Found 0 live models" in rest  # it was not killed meanwhile


def test_under_nohup_it_outlives_its_terminal(start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit that
    try:
        command = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    command.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.5)


def test_server_ends_when_the_command_is_killed(
    start: Start,
    descendants: Callable[[int], list[int]],
    wait_until_gone: Callable[[list[int]], bool],
) -> None:
    command = start()
    processes = descendants(command.pid)
    assert len(processes) == 2
    command.kill()
    assert wait_until_gone(processes)


def test_says_so_when_the_server_dies(
    start: Start,
    descendants: Callable[[int], list[int]],
    wait_until_gone: Callable[[list[int]], bool],
) -> None:
    command = start("--timeout=200", "--", "--log-info=false")
    tritonserver, stub = descendants(command.pid)
    os.kill(tritonserver, signal.SIGKILL)
    errors = command.communicate()[1]
    assert command.returncode == 1
    assert "error: tritonserver ended by itself with exit code -9" in errors.splitlines()
    assert "Started GRPCInferenceService" not in errors, "a flag after -- did not get through"
    assert wait_until_gone([stub])


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_missing_repository_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    result = run("--repository", missing)
    assert result.returncode == 2
    assert result.stderr == f"error: model repository {missing} is not a folder\n"


def test_repository_without_a_model_is_one_line(quick_repository: Path) -> None:
    model = quick_repository / "dim"
    result = run("--repository", model)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: no model in {model}, expected MODEL/config.pbtxt ther")
    assert result.stderr.count("\n") == 1


def test_what_cannot_be_looked_at_is_one_line() -> None:
    result = run("--repository", "x" * 300)  # longer than a name can be
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_port_taken_is_one_line(quick_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("--repository", quick_repository, f"--grpc-port={port}")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: cannot listen on 127.0.0.1:{port} (Address already in use): choose another port\n"
    )


def test_of_two_that_start_at_once_on_the_same_ports_one_says_that_it_is_ready(
    quick_repository: Path, free_port: Callable[[], int], wait_until: Callable[..., None]
) -> None:
    ports = [f"--{name}-port={free_port()}" for name in ("grpc", "http", "metrics")]
    command = [sys.executable, "-m", "server", "--repository", quick_repository, *ports]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(2)
    ]
    try:
        wait_until(lambda: any(one.poll() is not None for one in both))
        late, first = sorted(both, key=lambda one: one.poll() is None)
        assert first.stdout.readline().startswith("ready: ")
        assert (late.stdout.read(), late.returncode) == ("", 1)
    finally:
        for one in both:
            one.terminate()
            one.communicate()


def test_opens_shared_memory_if_told_to(start: Start, free_port: Callable[[], int]) -> None:
    port = free_port()
    start("--shm", f"--grpc-port={port}")
    photo, trimap = np.zeros((8, 9, 3), np.uint8), np.full((8, 9), 128, np.uint8)
    with Matte(f"127.0.0.1:{port}", shm=True) as matte:
        assert matte.alpha(photo, trimap).shape == trimap.shape
