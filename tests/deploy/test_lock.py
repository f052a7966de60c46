"""The locks: what client and server need, by version and hash, and where from is not said."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib", reason="Python reads TOML since 3.11")

ROOT = Path(__file__).parents[2]
LOCKED = pytest.mark.parametrize("extra", ["client", "server"])
PYTHONS = [("client", f"3.{minor}.0") for minor in (10, 11, 12, 13)]
PYTHONS += [("server", f"3.{minor}.0") for minor in (10, 11, 12)]


def read_lock(extra: str) -> str:
    return (ROOT / f"deploy/{extra}.lock").read_text()


def entries(extra: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Yield what is pinned, and its hashes."""
    for line in read_lock(extra).replace("\\\n", "").splitlines():
        if not line.lstrip().startswith("#"):
            pinned, *hashes = line.split(" --hash=")
            yield Requirement(pinned), [found.strip() for found in hashes]


def wanted(extra: str) -> Iterator[Requirement]:
    """What pyproject.toml asks for: always, with the extra, and to build the package itself."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = written["project"]
    lines = [*project["dependencies"], *written["build-system"]["requires"]]
    lines += project["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:  # an extra of ours
            for own in requirement.extras:
                yield from map(Requirement, project["optional-dependencies"][own])
        else:
            yield requirement


@pytest.mark.parametrize(("extra", "python"), PYTHONS)
def test_what_is_asked_for_is_pinned_at_a_version_that_is_allowed(extra: str, python: str) -> None:
    here = default_environment() | {
        "python_version": python.removesuffix(".0"),
        "python_full_version": python,
        "sys_platform": "linux",
    }
    pins: dict[str, str] = {}
    for entry, _ in entries(extra):
        if entry.marker is None or entry.marker.evaluate(here):
            (exactly,) = entry.specifier
            assert exactly.operator == "==" and "*" not in exactly.version, entry
            assert entry.name not in pins, entry
            pins[entry.name] = exactly.version
    for requirement in wanted(extra):
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@LOCKED
def test_everything_has_hashes_and_no_address(extra: str) -> None:
    for entry, hashes in entries(extra):
        assert hashes and entry.url is None, entry
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", found) for found in hashes), entry
    assert "://" not in read_lock(extra)


def test_the_image_holds_nothing_else() -> None:
    installs = re.findall(r"pip install (.*)", (ROOT / "deploy/Dockerfile").read_text())
    assert len(installs) == 2
    assert "--require-hashes --requirement server.lock" in installs[0]
    assert "--no-deps --no-build-isolation ." in installs[1]
