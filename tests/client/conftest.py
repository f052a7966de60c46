"""Real Triton servers with a stand-in model, and pictures to send to them."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from client.matte import main
from matting.images import read_trimap, write_image
from server.launcher import Server, launch

ROOT = Path(__file__).parents[2]
Picture = tuple[np.ndarray, np.ndarray]
"""Image (H x W x 3 RGB) and trimap (H x W), uint8."""

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [
  {{ name: "{image}" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }},
  {{ name: "trimap" data_type: TYPE_UINT8 dims: [ -1, -1, 1 ] }}
]
output [ {{ name: "alpha" data_type: TYPE_{alpha_type} dims: [ -1, -1, 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "seconds" value: {{ string_value: "{seconds}" }} }}
parameters {{ key: "error" value: {{ string_value: "{error}" }} }}
parameters {{ key: "answer" value: {{ string_value: "{answer}" }} }}
parameters {{ key: "max_pixels" value: {{ string_value: "{max_pixels}" }} }}
"""


def make_repository(
    folder: Path,
    *,
    name: str = "dim",
    image: str = "image",
    alpha_type: str = "UINT8",
    seconds: float = 0,
    error: str = "",
    answer: str = "green",
    max_pixels: int = 10**9,
) -> Path:
    """A model repository with the stand-in: it takes `seconds`, and answers with `error` if any.

    `answer` is the image's green channel, or its mean over the image or tile.
    """
    version = folder / name / "1"
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("standin.py"), version / "model.py")
    shutil.copy(ROOT / "model_repository/dim/1/model.py", version / "shipped.py")
    (folder / name / "config.pbtxt").write_text(
        CONFIG.format(
            name=name,
            image=image,
            alpha_type=alpha_type,
            seconds=seconds,
            error=error,
            answer=answer,
            max_pixels=max_pixels,
        )
    )
    return folder


@pytest.fixture(scope="session")
def kill() -> Callable[[Server], None]:
    """End a server as a power cut would, with its backend processes."""

    def kill_group(server: Server) -> None:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()

    return kill_group


@pytest.fixture(scope="session")
def standin_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def standin(standin_repository: Path) -> Iterator[Server]:
    with launch(standin_repository) as server:
        yield server


@pytest.fixture(scope="session")
def slow(
    tmp_path_factory: pytest.TempPathFactory, kill: Callable[[Server], None]
) -> Iterator[Server]:
    """A stand-in server that never answers within a test."""
    with launch(make_repository(tmp_path_factory.mktemp("slow"), seconds=60)) as server:
        yield server
        kill(server)  # asked politely, it would finish its minute first


@pytest.fixture
def launch_standin(
    tmp_path: Path, kill: Callable[[Server], None]
) -> Iterator[Callable[..., Server]]:
    """Start a stand-in server of the test's own; it ends with the test."""
    with contextlib.ExitStack() as servers:

        def start(grpc_port: int = 0, shm: bool = False, **model: object) -> Server:
            repository = tmp_path / f"repository-{len(list(tmp_path.glob('repository-*')))}"
            server = servers.enter_context(
                launch(make_repository(repository, **model), grpc_port=grpc_port, shm=shm)
            )
            servers.callback(kill, server)  # quicker than a polite stop
            return server

        yield start


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Picture]:
    """A photo of noise, and a trimap with all three kinds of pixels (if it has three rows)."""

    def make(height: int, width: int, seed: int = 0) -> Picture:
        image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        trimap = np.full((height, width), 128, np.uint8)
        third = height // 3
        trimap[:third] = 0
        trimap[height - third :] = 255
        return image, trimap

    return make


@pytest.fixture(scope="session")
def expected_alpha() -> Callable[..., np.ndarray]:
    """What the stand-in answers."""

    def answer(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        return np.where((trimap == 0) | (trimap == 255), trimap, image[..., 1])

    return answer


@pytest.fixture
def picture(make_picture: Callable[..., Picture]) -> Picture:
    return make_picture(37, 53)


@pytest.fixture
def files(tmp_path: Path, picture: Picture) -> tuple[Path, Path]:
    """The picture as two files."""
    image, trimap = tmp_path / "photo.png", tmp_path / "trimap.png"
    write_image(image, picture[0])
    write_image(trimap, picture[1])
    return image, trimap


@pytest.fixture(scope="session")
def open_page(free_port: Callable[[], int]) -> Callable[..., AbstractContextManager[str]]:
    """Run the page as a program, which must leave nothing behind; yield its address.

    It takes environment variables, too.
    """

    @contextlib.contextmanager
    def run_page(url: str, temporary: Path, **variables: str) -> Iterator[str]:
        command = [sys.executable, "-m", "client.page", "--port", str(free_port()), "--url", url]
        environment = {**os.environ, "TMPDIR": str(temporary), **variables}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                address = re.match(r"open (http://127\.0\.0\.1:\d+) in", process.stdout.readline())
                assert address, "the page did not start"
                yield address[1]
            finally:
                process.send_signal(signal.SIGTERM)
                code = process.wait(30)
        assert code == 0
        assert not list(temporary.iterdir())

    return run_page


@pytest.fixture(scope="session")
def count_requests() -> Callable[[str], int]:
    """How many images or tiles a server was asked for, whatever it answered, once that is at rest.

    Triton answers a request first and counts it then.
    """

    def count(url: str) -> int:
        counts = [-1]
        with InferenceServerClient(url) as client:
            while len(counts) < 4 or len(set(counts[-3:])) > 1:
                time.sleep(0.05)
                stats = client.get_inference_statistics("dim").model_stats[0].inference_stats
                counts.append(stats.success.count + stats.fail.count)
        return counts[-1]

    return count


@pytest.fixture
def asked(standin, count_requests):
    """Count what the stand-in server was asked for since the test began."""
    before = count_requests(standin.grpc_url)
    return lambda: count_requests(standin.grpc_url) - before


@pytest.fixture
def run(standin, capsys, monkeypatch, tmp_path):
    """Run the command in tmp_path; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments, url=standin.grpc_url):
        urls = [url] if isinstance(url, str) else url
        servers = [word for url in urls for word in ("--url", url)]
        try:
            code = main([*map(str, arguments), *servers])
        except SystemExit as stop:  # argparse's way to end
            code = stop.code
        return code, *capsys.readouterr()

    return run_main


@pytest.fixture
def refuse(run, tmp_path):
    """Run the command, which must end with 2, one line of error, and nothing written."""

    def run_and_check(*arguments, **options):
        before = listing(tmp_path)
        code, out, err = run(*arguments, **options)
        assert (code, out) == (2, "")
        assert listing(tmp_path) == before
        lines = [line for line in err.splitlines() if not line.startswith("usage:")]
        assert len(lines) == 1, err
        return lines[0]

    return run_and_check


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start the command as a program of its own in tmp_path."""
    running = []

    def start_program(*arguments: object, **options: object) -> subprocess.Popen:
        running.append(
            subprocess.Popen(
                [sys.executable, ROOT / "client" / "matte.py", *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
                text=True,
                **{"stdout": subprocess.PIPE, **options},
            )
        )
        return running[-1]

    yield start_program
    for program in running:
        program.kill()
        program.communicate()


@pytest.fixture
def make_pairs(
    tmp_path: Path, make_picture: Callable[..., Picture], expected_alpha: Callable[..., np.ndarray]
) -> Callable[..., dict[str, np.ndarray]]:
    """Write photos/NAME and trimaps/NAME.png; return the alpha that each name must get."""

    def make(names: list[str], size: tuple[int, int] = (9, 12)) -> dict[str, np.ndarray]:
        expected = {}
        for seed, name in enumerate(names):
            image, trimap = make_picture(*size, seed)
            for folder, path, array in (
                ("photos", Path(name), image),
                ("trimaps", Path(name).with_suffix(".png"), trimap[..., None]),
            ):
                (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
                # Not write_image, which waits for the disk.
                encoded = cv2.imencode(path.suffix, array[..., ::-1])[1]
                (tmp_path / folder / path).write_bytes(encoded)
            expected[str(Path(name).with_suffix(".png"))] = expected_alpha(image, trimap)
        return expected

    return make


@pytest.fixture(scope="session")
def check_mattes() -> Callable[[Path, dict[str, np.ndarray]], None]:
    """The folder holds exactly these mattes, and nothing else, hidden or half-written."""

    def check(folder: Path, expected: dict[str, np.ndarray]) -> None:
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
        assert found == set(expected)
        for name, alpha in expected.items():
            np.testing.assert_array_equal(read_trimap(folder / name), alpha, err_msg=name)

    return check


@pytest.fixture
def close_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a folder be one that may not be read, even by root."""
    scandir = os.scandir

    def close(closed: str) -> None:
        def refuse_closed(folder: str | Path) -> object:
            if str(folder) == closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
            return scandir(folder)

        monkeypatch.setattr("client.pairs.os.scandir", refuse_closed)

    return close


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
