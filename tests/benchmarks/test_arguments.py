"""What the benchmarks' command lines refuse, and what they start with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from server.launcher import HUGE_PAGES


@pytest.mark.parametrize(
    "command",
    [
        "edges --rounds 0",
        "edges --pictures 0",
        "masks --pictures -1",
        "scaling --images 0",
        "scaling --rounds 0",
        "scaling --servers 0",
        "soak --minutes 0",
        "throughput --batch 1 0",
        "tiles --pictures 0",
        "tiles --rounds 0",
        "training --batch-size 0",
    ],
)
def test_counts_are_more_than_0(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    _, option, *_, count = command.split()
    assert f"argument {option}: {count} is not greater than 0" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["latency --sizes", "scaling --size", "throughput --size"])
@pytest.mark.parametrize("size", ["0x64", "64x-1", "64", "64x64x3"])
def test_a_size_is_two_sides(command: str, size: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), size])
    assert ended.value.code == 2
    assert f"{size} is not HxW, such as 512x512" in capsys.readouterr().err


def test_peers_have_the_memory_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if {HUGE_PAGES!r}.items() <= os.environ.items():\n"
        "    print(sys.orig_argv[1:], flush=True)\n"
        "    os._exit(0)\n"
    )
    called = ["-X", "utf8", "-m", "benchmarks", "latency", "--rounds", "2"]
    environment = {name: value for name, value in os.environ.items() if name not in HUGE_PAGES}
    said = subprocess.run(
        [sys.executable, *called],
        env={**environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{called}\n"
