"""The life of a server: it starts, says why it does not, and leaves nothing behind."""

import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from server.launcher import LOOPBACK, LaunchError, Server, _held_ports, launch

Infer = Callable[[Server, np.ndarray, np.ndarray], np.ndarray]
RandomPair = Callable[..., tuple[np.ndarray, np.ndarray]]


def test_two_servers_at_once(quick_repository: Path, infer: Infer, random_pair: RandomPair) -> None:
    image, trimap = random_pair(12, 34)
    with launch(quick_repository) as server:
        with launch(quick_repository) as other:
            assert other.grpc_url != server.grpc_url
            for asked in (server, other):
                np.testing.assert_array_equal(infer(asked, image, trimap), trimap)
        assert server.is_ready()


def test_nothing_is_left_behind(
    tiny_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    descendants: Callable[[int], list[int]],
    wait_until_gone: Callable[[list[int]], bool],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with launch(tiny_repository) as server:
        processes = [server.process.pid, *descendants(server.process.pid)]
        assert len(processes) == 2, "tritonserver and the stub that runs model.py"
        assert list(tmp_path.iterdir())
    assert server.process.returncode == 0
    assert wait_until_gone(processes)
    assert not list(tmp_path.iterdir())


def test_memory_comes_in_huge_pages(tiny_server: Server) -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this machine gives no huge pages")
    (stub,) = psutil.Process(tiny_server.process.pid).children()
    sizes = Path(f"/proc/{stub.pid}/smaps_rollup").read_text()
    assert re.search(r"AnonHugePages: +[1-9]", sizes)


def test_what_the_environment_says_of_memory_stays(
    quick_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    with launch(quick_repository) as server:
        environment = psutil.Process(server.process.pid).environ()
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0"


def test_an_error_inside_the_context_stops_even_a_kept_server(quick_repository: Path) -> None:
    with pytest.raises(ZeroDivisionError), launch(quick_repository, keep=True) as server:
        raise ZeroDivisionError
    assert server.process.returncode == 0


def test_listens_on_loopback_only(tiny_server: Server) -> None:
    """All sockets of all its processes, those of its own ports and any other."""
    urls = (tiny_server.grpc_url, tiny_server.http_url, tiny_server.metrics_url)
    tritonserver = psutil.Process(tiny_server.process.pid)
    listening = {
        # gRPC's 127.0.0.1 appears as an IPv6 address.
        f"{socket_.laddr.ip.removeprefix('::ffff:')}:{socket_.laddr.port}"
        for process in (tritonserver, *tritonserver.children(recursive=True))
        for socket_ in process.net_connections(kind="inet")
        if socket_.status == psutil.CONN_LISTEN
    }
    assert listening == set(urls)


def test_port_taken(tiny_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(LaunchError, match=f"127.0.0.1:{port} .Address already in use"),
            launch(tiny_repository, http_port=port),
        ):
            pass


def test_ports_of_a_server_to_come_are_nobody_elses() -> None:
    free = [(LOOPBACK, 0)] * 3
    with _held_ports(*free) as held, _held_ports(*free) as others:
        assert len({*held, *others}) == 6
        for address in held:
            with socket.socket() as other, pytest.raises(OSError, match="already in use"):
                other.bind(address)


def test_what_does_not_speak_http_is_not_ready(tiny_server: Server) -> None:
    grpc = LOOPBACK, int(tiny_server.grpc_url.rpartition(":")[2])
    assert not Server(tiny_server.process, [grpc] * 3).is_ready()


def test_http_and_metrics_listen_elsewhere(quick_repository: Path) -> None:
    with launch(quick_repository, host="localhost", http_host="127.0.0.2", timeout=60) as server:
        urls = [server.grpc_url, server.http_url, server.metrics_url]
        (grpc, grpc_port), *closed = (url.split(":") for url in urls)
        assert [grpc, *(host for host, _ in closed)] == ["127.0.0.1", "127.0.0.2", "127.0.0.2"]
        socket.create_connection((grpc, int(grpc_port))).close()
        for _, port in closed:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((grpc, int(port)))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"host": "nowhere.invalid"}, "host 'nowhere.invalid' has no IPv4 address"),
        ({"host": "::1"}, "host '::1' has no IPv4 address"),
        ({"host": ""}, "host '' has no IPv4 address"),
        ({"host": "." * 99}, "has no IPv4 address"),
        ({"http_host": "nowhere.invalid"}, "host 'nowhere.invalid' has no IPv4 address"),
        # A network for documentation: no machine has it.
        ({"host": "192.0.2.1"}, "on 192.0.2.1:0 .Cannot assign.*: choose an address of this"),
        ({"grpc_port": 70000}, "port is 70000: expected 1 to 65535, or 0 for any"),
        ({"http_port": -1}, "port is -1: expected"),
        ({"flags": ["--http-port=9000"]}, "--http-port=9000 is not for tritonserver: use --http-"),
        (
            {"flags": ["--allow-http=false"]},
            "leave out --allow-http=false: readiness is checked",
        ),
        ({"flags": ["--grpc-address", "::"]}, "--grpc-address is not for .*: use --host before"),
        ({"flags": ["--http-address=::"]}, "--http-address=:: is not for .*: use --http-host bef"),
    ],
)
def test_where_it_cannot_listen(tiny_repository: Path, options: dict, reason: str) -> None:
    with (
        pytest.raises(LaunchError, match=reason) as raised,
        launch(tiny_repository, timeout=0, **options),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_a_path_that_a_shell_takes_apart(
    tiny_repository: Path, tmp_path: Path, infer: Infer, random_pair: RandomPair
) -> None:
    repository = tmp_path / "models & more"
    shutil.copytree(tiny_repository, repository)
    image, trimap = random_pair(9, 7)
    with launch(repository, timeout=60) as server:
        alpha = infer(server, image, trimap)
    np.testing.assert_array_equal(alpha, np.maximum(image[..., :1], trimap))


def test_a_temporary_folder_that_a_shell_takes_apart(
    quick_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unusual = tmp_path / "temporary files"
    unusual.mkdir()
    monkeypatch.setenv("TMPDIR", str(unusual))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with launch(quick_repository, timeout=60):
        assert not list(unusual.iterdir())


def test_no_temporary_folder(
    quick_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with (
        pytest.raises(LaunchError, match=r"in .*missing \(No such file or directory\): set TMPDIR"),
        launch(quick_repository),
    ):
        pass


def test_missing_repository(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="missing is not a folder"):
        launch(tmp_path / "missing").__enter__()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (
            "1/model.onnx",
            "no network",
            "failed to load 'dim'.*Unable to read the model.*model.onnx",
        ),
        ("1/model.onnx", None, "failed to load 'dim'.*Could not open the file.*model.onnx"),
        ("config.pbtxt", "nonsense", "failed to read text proto from .*config.pbtxt"),
        ("1/model.py", None, "to run a model died: Python model file not found in .*1/model.py"),
    ],
)
def test_broken_model_shows_the_servers_own_error(
    tiny_repository: Path, tmp_path: Path, file: str, content: str | None, reason: str
) -> None:
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    broken = tmp_path / "dim" / file
    broken.unlink() if content is None else broken.write_text(content)
    with pytest.raises(LaunchError, match=reason) as raised, launch(tmp_path, timeout=60):
        pass
    assert "\n" not in str(raised.value)


def test_unknown_flag(tiny_repository: Path) -> None:
    with (
        pytest.raises(LaunchError, match="unrecognized option '--bogus'"),
        launch(tiny_repository, flags=["--bogus"]),
    ):
        pass


def test_not_ready_in_time(tiny_repository: Path) -> None:
    with (
        pytest.raises(LaunchError, match="not ready after 0 s"),
        launch(tiny_repository, timeout=0),
    ):
        pass
