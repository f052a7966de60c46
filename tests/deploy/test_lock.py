"""The lock: what client and server need, by version and hash, and where from is not said."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib", reason="Python reads TOML since 3.11")

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "deploy/requirements.lock"
EXTRAS = ("client", "server")
PYTHONS = ("3.10.0", "3.11.0", "3.12.0")


def entries() -> Iterator[tuple[Requirement, list[str]]]:
    """Yield what is pinned, and its hashes."""
    for line in LOCK.read_text().replace("\\\n", "").splitlines():
        if not line.lstrip().startswith("#"):
            pinned, *hashes = line.split(" --hash=")
            yield Requirement(pinned), [found.strip() for found in hashes]


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for: always, with the extras, and to build the package itself."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = written["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [
        Requirement(line)
        for line in [*project["dependencies"], *extras, *written["build-system"]["requires"]]
    ]


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_asked_for_is_pinned_at_a_version_that_is_allowed(python: str) -> None:
    here = default_environment() | {
        "python_version": python.removesuffix(".0"),
        "python_full_version": python,
        "sys_platform": "linux",
    }
    pins: dict[str, str] = {}
    for entry, _ in entries():
        if entry.marker is None or entry.marker.evaluate(here):
            (exactly,) = entry.specifier
            assert exactly.operator == "==" and "*" not in exactly.version, entry
            assert entry.name not in pins, entry
            pins[entry.name] = exactly.version
    for requirement in wanted():
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_everything_has_hashes_and_no_address() -> None:
    for entry, hashes in entries():
        assert hashes and entry.url is None, entry
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", found) for found in hashes), entry
    assert "://" not in LOCK.read_text()


def test_the_image_holds_nothing_else() -> None:
    installs = re.findall(r"pip install (.*)", (ROOT / "deploy/Dockerfile").read_text())
    assert len(installs) == 2
    assert "--require-hashes --requirement requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation ." in installs[1]
