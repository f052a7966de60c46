"""`python -m export`: an export, or a check of one."""

import argparse
import sys
from pathlib import Path

from export.manifest import check, read_manifest, versions
from export.repository import MODEL
from matting.signals import run_until_stopped


def run_check(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export check",
        description="Check that a model repository is as its manifest says and fits this machine.",
    )
    parser.add_argument(
        "repository",
        type=Path,
        nargs="?",
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository to check (%(default)s)",
    )
    model = parser.parse_args(arguments).repository / MODEL
    try:
        return max(check_version(folder) for folder in versions(model) or [model / "1"])
    except OSError as error:
        print(f"check: {error}", file=sys.stderr)
        return 2


def check_version(folder: Path) -> int:
    """Print what is wrong with a version, or that nothing is; return the exit code."""
    faults = check(folder)
    for fault in faults:
        print(f"check: {folder}: {fault}", file=sys.stderr)
    if not faults:
        print(f"{folder}: {', '.join(read_manifest(folder))} as the manifest says")
    return 1 if faults else 0


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["check"]:
        return run_check(arguments[1:])
    try:
        from export.command import run_export  # PyTorch, which a check does not need, takes seconds
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install -e '.[export]'", file=sys.stderr)
        return 2
    return run_export(arguments)


if __name__ == "__main__":
    sys.exit(run_until_stopped("export", main))
