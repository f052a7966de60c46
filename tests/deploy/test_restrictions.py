"""NVIDIA's container closes what `python -m server` closes, with a key of each start."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from server.launcher import restrictions

DEPLOY = Path(__file__).parents[2] / "deploy"


def compose_command() -> list[str]:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return [word.replace("$$", "$") for word in compose["services"]["triton-gpu"]["command"]]


def kubernetes_command() -> list[str]:
    deployment = yaml.safe_load((DEPLOY / "kubernetes/gpu/deployment.yaml").read_text())
    (triton,) = deployment["spec"]["template"]["spec"]["containers"]
    return triton["command"]


@pytest.mark.parametrize("command", [compose_command(), kubernetes_command()])
def test_closes_what_the_pip_server_closes(command: list[str], tmp_path: Path) -> None:
    """With a `tritonserver` that only says what it was given."""
    program = tmp_path / "tritonserver"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start() -> list[str]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    first, second = start(), start()
    assert first[:-2] == second[:-2] == [word for word in command if word.startswith("--")]
    key = re.compile("(?<=:admin=).{32,}$")
    assert [key.sub("", flag) for flag in first[-2:]] == [key.sub("", f) for f in restrictions()]
    assert not set(first[-2:]) & set(second[-2:])
