"""Start tritonserver, wait until it is ready, stop it."""

import errno
import http.client
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from server.installation import find_tritonserver

Address = tuple[str, int]
"""Host and port."""
LOOPBACK = "127.0.0.1"
SHARED_MEMORY = Path("/dev/shm")
SHARING = "shared-memory"
NOT_FOR_CLIENTS = "model-repository,trace,logging"
"""Triton's names for what its gRPC and HTTP offer besides inference and statistics."""
# Photos come over gRPC. Over HTTP one request can end Triton 2.51: JSON data of a gigantic shape.
CLOSED = {
    "--grpc-restricted-protocol": f"{SHARING},{NOT_FOR_CLIENTS}",
    "--http-restricted-api": f"inference,{SHARING},{NOT_FOR_CLIENTS}",
}
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Asks Linux for memory in pages of 2 MB: MNN is 5 to 10 % faster with them, OpenVINO 1 to 3 %."""
START_TIMEOUT = 300
"""Seconds until all models must be loaded and warm: as many as Kubernetes' startup probe allows."""
# Seconds after which Triton will not notice any more that a process that loads or runs a model is
# dead. Where it notices, within two, it removes the process, and says what it died of.
UNNOTICED = 5
# Seconds that tritonserver gives requests in flight when it is asked to stop (its own default).
EXIT_TIMEOUT = 30
OWN = {
    "--grpc-address": "--host",
    "--http-address": "--http-host",
    "--metrics-address": "--http-host",
    "--grpc-port": "--grpc-port",
    "--http-port": "--http-port",
    "--metrics-port": "--metrics-port",
}
"""Triton's flags for its addresses, and ours in their place: the launcher checks health there."""


class LaunchError(RuntimeError):
    """tritonserver could not start or died; the message carries its own reason."""


class Server:
    """A running tritonserver.

    Attributes
    ----------
    grpc_url, http_url, metrics_url : str
        "host:port" of each endpoint.
    process : subprocess.Popen
        tritonserver itself; its backend processes are in its process group.
    """

    def __init__(self, process: subprocess.Popen, addresses: Iterable[Address]) -> None:
        self.process = process
        self.grpc_url, self.http_url, self.metrics_url = (
            f"{host}:{port}" for host, port in addresses
        )
        self._serving: set[int] = set()

    def is_ready(self) -> bool:
        """Whether all models are loaded and warm: Triton's own health check, over HTTP."""
        with closing(http.client.HTTPConnection(self.http_url, timeout=5)) as connection:
            try:
                connection.request("GET", "/v2/health/ready")
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):  # or it is not HTTP that answers there
                return False

    def wait(self) -> str:
        """Wait until no request can be answered any more; return why, in words.

        Triton does not notice when the process that runs a model for it dies, of lack of memory for
        example: it goes on to say that it is ready, and fails every request. Here it is ended then.
        A new version's process that died before it ever served is no reason: the old one answers.
        """
        alive: set[int] = set()
        none_dead = time.monotonic()
        while True:
            try:
                return f"tritonserver ended by itself with exit code {self.process.wait(1)}"
            except subprocess.TimeoutExpired:
                before, (alive, dead) = alive, self._backends()
            # One whose version lacks model.py is dead at once.
            self._serving |= alive & before
            if not dead & self._serving:
                none_dead = time.monotonic()
            elif time.monotonic() > none_dead + UNNOTICED:
                self._kill()
                return "a process that ran a model was killed, perhaps for lack of memory"

    def _wait_until_ready(self, timeout: float) -> str | None:
        """Return None once the server is ready, or in words how its start failed."""
        deadline = time.monotonic() + timeout
        none_dead = time.monotonic()
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return f"tritonserver ended with exit code {self.process.returncode}"
            ready = self.is_ready() and self._listens()
            alive, dead = self._backends()
            if ready:
                self._serving = alive
                return None
            if not dead:
                none_dead = time.monotonic()
            elif time.monotonic() > none_dead + UNNOTICED:
                self._kill()  # it waits for the dead one, and would not end by itself
                return "a process that was to run a model died"
            time.sleep(0.1)
        return f"tritonserver was not ready after {timeout:g} s"

    def _listens(self) -> bool:
        """Whether it is this server that answers over HTTP, not one that was started beside it."""
        port = int(self.http_url.rpartition(":")[2])
        listening = {
            socket.pid
            for socket in psutil.net_connections("tcp4")
            if socket.status == psutil.CONN_LISTEN and socket.laddr.port == port
        }
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.process.pid)
            # Also what it starts: the tritonserver on PATH may be somebody's script.
            family = (server, *server.children(recursive=True))
            return not listening.isdisjoint(process.pid for process in family)
        return False

    def _backends(self) -> tuple[set[int], set[int]]:
        """Return the processes that run models: those that live, and those that are dead."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            dead = {child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE}
            return {child.pid for child in children} - dead, dead
        return set(), set()

    def stop(self) -> None:
        """Let requests in flight finish, then end the server and its backend processes."""
        self.process.terminate()
        # It hangs, or no patience is left.
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.wait(EXIT_TIMEOUT + 10)
        self._kill()

    def _kill(self) -> None:
        """End what is left: a backend process notices only after its request that Triton died."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def launch(
    repository: Path | str,
    *,
    host: str = LOOPBACK,
    http_host: str = LOOPBACK,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    flags: Sequence[str] = (),
    log: IO | None = None,
    timeout: float = START_TIMEOUT,
    keep: bool = False,
    shm: bool = False,
) -> Iterator[Server]:
    """Run tritonserver for as long as the context lasts.

    However this process ends, the server ends with it. Launch from the main thread: Linux ends the
    server when the thread that started it does.

    Parameters
    ----------
    repository : path
        Model repository; all its models are loaded.
    host : str
        IPv4 address on which gRPC listens, or a name that has one.
    http_host : str
        The same for HTTP (health) and metrics, which are never encrypted.
    grpc_port, http_port, metrics_port : int
        0 picks a free one.
    flags : sequence of str
        More flags for tritonserver; they win over the launcher's own. None of `OWN`, and not
        ``--allow-http``.
    log : open file, optional
        Where tritonserver writes. By default its log only serves to say why a start failed.
    timeout : float
        Seconds until it must be ready.
    keep : bool
        Leave the server running when the context ends without an error, and after this process.
    shm : bool
        Let gRPC clients on this machine hand pixels over in shared memory. Whoever reaches the
        server may then name any part of /dev/shm to it.

    Raises
    ------
    NotADirectoryError, FileNotFoundError
        There is no such repository, or no model in it.
    LaunchError
        Nothing can listen on a host or port, a flag is not allowed, there is no folder for
        temporary files that Triton can use, or the server died or was not ready in time.
    server.installation.InstallationError
        No tritonserver can run on this machine.
    """
    _check_repository(Path(repository))
    _refuse_own(flags)
    host, http_host = _ipv4(host), _ipv4(http_host)
    wanted = (host, grpc_port), (http_host, http_port), (http_host, metrics_port)
    with ExitStack() as stack:
        folder = _temporary_folder()
        stack.callback(shutil.rmtree, folder)
        stack.callback(_free_shared_memory, folder.name)
        log_file = folder / "log"
        output = log or stack.enter_context(log_file.open("w"))
        addresses = stack.enter_context(_held_ports(*wanted))
        installation = find_tritonserver(folder)
        process = subprocess.Popen(
            [
                *([] if keep else ["setpriv", "--pdeathsig", "TERM"]),
                installation.executable,
                *_flags(_shell_safe(repository, folder), addresses),
                f"--backend-config=python,shm-region-prefix-name={folder.name}",
                *installation.flags,
                *restrictions(flags, shm),
                *flags,
            ],
            env={**HUGE_PAGES, **os.environ, **installation.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group: Ctrl-C in the terminal reaches only us, and stop() can end the group.
            start_new_session=True,
        )
        server = Server(process, addresses)
        stack.callback(server.stop)
        failure = server._wait_until_ready(timeout)
        if failure:
            raise LaunchError(f"{failure}: {_why(log_file)}")
        yield server
        if keep:
            stack.pop_all()


def _check_repository(repository: Path) -> None:
    if not repository.is_dir():
        raise NotADirectoryError(f"model repository {repository} is not a folder")
    if not any(repository.glob("*/config*")):
        raise FileNotFoundError(
            f"no model in {repository}, expected MODEL/config.pbtxt there: export to it, or give "
            "the folder above the model's"
        )


def _refuse_own(flags: Sequence[str]) -> None:
    for flag in flags:
        name = flag.partition("=")[0]
        if name in OWN:
            raise LaunchError(f"{flag} is not for tritonserver: use {OWN[name]} before the --")
        if name == "--allow-http":
            raise LaunchError(f"leave out {flag}: readiness is checked over HTTP")


def _ipv4(host: str) -> str:
    """Return the address of a host: Triton takes no names."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise LaunchError(f"host {host!r} has no IPv4 address ({error})") from None


def _shell_safe(repository: Path | str, folder: Path) -> Path | str:
    """Return the repository, or a link in `folder` to it if a shell would take its path apart.

    Triton 2.51 starts the process that runs model.py by a line for the shell, without quotes.
    """
    if shlex.quote(str(repository)) == str(repository):
        return repository
    link = folder / "repository"
    link.symlink_to(Path(repository).absolute())
    return link


def _temporary_folder() -> Path:
    """Make a folder for temporary files that a shell would not take apart, see `_shell_safe`."""
    usual = tempfile.gettempdir()
    place = usual if shlex.quote(usual) == usual else "/tmp"
    try:
        return Path(tempfile.mkdtemp(prefix="tritonserver-", dir=place))
    except OSError as error:
        raise LaunchError(
            f"no temporary folder in {place} ({error.strerror}): set TMPDIR to one that can be "
            "written to and has no spaces in its path"
        ) from None


def _free_shared_memory(prefix: str) -> None:
    """Remove what a Python backend that was killed leaves behind: memory until the next boot."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


@contextmanager
def _held_ports(*addresses: Address) -> Iterator[list[Address]]:
    """Replace every 0 by a free port; a port that something listens on is an error.

    While they are held nobody else is given them as free ones. Triton may listen on them: to Linux
    a port whose sockets all have SO_REUSEADDR is only taken once one of them listens.
    """
    reuse = socket.SOL_SOCKET, socket.SO_REUSEADDR
    held = []
    with ExitStack() as stack:
        for host, port in addresses:
            holder = stack.enter_context(socket.socket())
            # A free port is one that nobody holds.
            holder.setsockopt(*reuse, port != 0)
            try:
                holder.bind((host, port))
            except OverflowError:
                raise LaunchError(f"port is {port}: expected 1 to 65535, or 0 for any") from None
            except OSError as error:
                not_here = error.errno == errno.EADDRNOTAVAIL
                other = "an address of this machine" if not_here else "another port"
                raise LaunchError(
                    f"cannot listen on {host}:{port} ({error.strerror}): choose {other}"
                ) from None
            holder.setsockopt(*reuse, 1)
            held.append((host, holder.getsockname()[1]))
        yield held


def _flags(repository: Path | str, addresses: Iterable[Address]) -> list[str]:
    listen = [
        flag
        for name, (host, port) in zip(("grpc", "http", "metrics"), addresses, strict=True)
        for flag in (f"--{name}-address={host}", f"--{name}-port={port}")
    ]
    return [
        f"--model-repository={repository}",
        "--disable-auto-complete-config",
        "--model-control-mode=none",
        "--exit-on-error=true",
        f"--exit-timeout-secs={EXIT_TIMEOUT}",
        *listen,
    ]


def restrictions(flags: Sequence[str] = (), shm: bool = False) -> list[str]:
    """Close what is `CLOSED` with a key drawn at random, unless `flags` say otherwise.

    The key is one of tritonserver's arguments, which users of this machine can read (`ps`); nobody
    else learns it. With `shm`, gRPC stays open to shared memory.
    """
    closed = {**CLOSED, "--grpc-restricted-protocol": NOT_FOR_CLIENTS} if shm else CLOSED
    return [
        f"{name}={protocols}:admin={secrets.token_hex(16)}"
        for name, protocols in closed.items()
        if not any(flag.startswith(name) for flag in flags)
    ]


def _why(log_file: Path) -> str:
    """Return the most telling of tritonserver's own error lines, as one line."""
    if not log_file.exists():
        return "its log says why"
    log = log_file.read_text(errors="replace")
    # The last error that it logs names the cause. A GPU that is not there is no error.
    errors = [e for e in re.findall(r'^E\d{4} .*?\] "(.*)"$', log, re.M) if "Cuda" not in e]
    errors = errors or re.findall(r"^(?:error|\S*tritonserver|.* stub): (.*)$", log, re.M)
    errors = errors or [log[-300:]]
    # Triton logs a traceback on one line, its ends spelled out; OpenVINO's reason has several.
    return " ".join(errors[-1].split(r"\n\nAt:")[0].replace(r"\n", " ").split())
