"""Shell completion, in a real bash that is typed into."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REGISTER = Path(sys.executable).parent / "activate-global-python-argcomplete"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("client/matte.py a.jpg b.png --prem", "--premultiplied"),
        ("client/matte.py a.jpg b.png --priority inter", "--priority interactive"),
        ("client/matte.py pho", "photo.jpg"),
        ("-m client.page --time", "--timeout"),
    ],
)
def test_bash_completes(typed, completed, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    (tmp_path / "client").symlink_to(ROOT / "client")
    (tmp_path / "photo.jpg").touch()
    folders = (str(REGISTER.parent), os.environ["PATH"])
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)}
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=tmp_path,
        env=environment | {"TERM": "dumb", "PS1": "> ", "COLUMNS": "200"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as bash:
        try:
            os.write(keyboard, f'eval "$({REGISTER.name} --dest=-)"\n'.encode())
            os.write(keyboard, f"python {typed}\t".encode())
            seen = ""
            deadline = time.monotonic() + 60
            while completed not in seen and time.monotonic() < deadline:
                if select.select([keyboard], [], [], 1)[0]:
                    seen += os.read(keyboard, 4096).decode(errors="replace")
            assert completed in seen
        finally:
            bash.kill()
            os.close(terminal)
            os.close(keyboard)
