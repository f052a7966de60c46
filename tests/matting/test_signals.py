"""How programs end that are stopped."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, shutil, signal, sys, tempfile, time
from matting.signals import run_until_stopped

def main():
    folder = tempfile.mkdtemp(dir=sys.argv[1])
    try:
        print("begun", flush=True)
        # After an exec Python would end by SIGINT. Short sleeps: a signal just before one waits.
        exec("while True: time.sleep(0.01)")
    finally:
        os.kill(os.getpid(), signal.SIGHUP)  # as a shell does whose terminal is closed
        shutil.rmtree(folder)

if __name__ == "__main__":
    sys.exit(run_until_stopped("program", main))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_program_leaves_nothing_and_says_so_in_one_line(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    folder = tmp_path / "temporary"
    folder.mkdir()
    command, pipe = [sys.executable, "-m", "program", folder], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    process.stdout.readline()
    assert any(folder.iterdir())
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (128 + number, "program: stopped\n")
    assert not any(folder.iterdir())
