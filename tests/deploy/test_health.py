"""Health checks and probes, as they stand in deploy/, of a server that runs and of none."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from server.__main__ import parse_arguments
from server.launcher import Server

DEPLOY = Path(__file__).parents[2] / "deploy"
CHECKED = "127.0.0.1:8000"
"""Where the checks ask: Triton's HTTP, inside of the container."""


@pytest.fixture
def nobody() -> str:
    """An address at which no server is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def checks() -> dict[str, list[str]]:
    """The commands of Dockerfile and compose.yaml."""
    (written,) = re.findall(r"^HEALTHCHECK .*?CMD (.*)$", dockerfile(), re.M | re.S)[:1]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    composed = {
        name: services[name]["healthcheck"]["test"][1:] for name in ("triton-cpu", "triton-gpu")
    }
    return {"Dockerfile": json.loads(written.splitlines()[0]), **composed}


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def probes() -> list[tuple[str, dict]]:
    """Name and contents of each of the Kubernetes manifests' probes."""
    deployment = yaml.safe_load((DEPLOY / "kubernetes/base/deployment.yaml").read_text())
    service = yaml.safe_load((DEPLOY / "kubernetes/kserve/service.yaml").read_text())
    containers = [
        *deployment["spec"]["template"]["spec"]["containers"],
        *service["spec"]["predictor"]["containers"],
    ]
    return [(name, c[name]) for c in containers for name in c if name.endswith("Probe")]


@pytest.mark.parametrize("where", checks())
def test_health_checks(server: Server, nobody: str, where: str) -> None:
    python, *arguments = checks()[where]
    assert python == "python3" and CHECKED in arguments[-1]

    def code(address: str) -> int:
        here = [argument.replace(CHECKED, address) for argument in arguments]
        return subprocess.run([sys.executable, *here], stderr=subprocess.DEVNULL).returncode

    assert code(server.http_url) == 0
    assert code(nobody) != 0


def test_probes(server: Server, nobody: str) -> None:
    assert len(probes()) == 6
    for name, probe in probes():
        path = probe["httpGet"]["path"]
        # One that loads a new version is not ready, and must not be killed for that.
        assert path == f"/v2/health/{'live' if name == 'livenessProbe' else 'ready'}"
        assert probe["httpGet"]["port"] in ("http", 8000)
        with urlopen(f"http://{server.http_url}{path}") as answer:
            assert answer.status == 200, name
        with pytest.raises(URLError):
            urlopen(f"http://{nobody}{path}")


def test_the_image_listens_where_clients_and_probes_come_from() -> None:
    """Which is outside of the container."""
    (written,) = re.findall(r"^ENTRYPOINT (\[.*\])$", dockerfile().replace("\\\n", ""), re.M)
    options = parse_arguments(json.loads(written)[len(["python3", "-m", "server"]) :])
    assert (options.host, options.http_host) == ("0.0.0.0", "0.0.0.0")


def test_a_start_has_the_same_time_everywhere() -> None:
    seconds = parse_arguments([]).timeout
    starts = [probe for name, probe in probes() if name == "startupProbe"]
    assert {p["periodSeconds"] * p["failureThreshold"] for p in starts} == {seconds}
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services["triton-cpu"]["healthcheck"]["start_period"] == f"{seconds}s"
    assert f"--start-period={seconds}s" in dockerfile()
