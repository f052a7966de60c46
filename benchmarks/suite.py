"""The benchmarks by name, their command lines, and how one of them is run."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from benchmarks import (
    connectivity,
    edges,
    flicker,
    foreground,
    gpu,
    latency,
    masks,
    parity,
    precision,
    scaling,
    soak,
    throughput,
    tiles,
    training,
    transport,
)
from benchmarks.record import new_record, to_json, write_files
from benchmarks.tables import to_markdown
from client.errors import ServerError
from export.errors import ExportError
from export.manifest import WEIGHTS, newest_version
from export.repository import MODEL
from matting.files import sha256
from server.installation import InstallationError
from server.launcher import LaunchError

BENCHMARKS: dict[str, ModuleType] = {
    "parity": parity,
    "precision": precision,
    "latency": latency,
    "gpu": gpu,
    "throughput": throughput,
    "tiles": tiles,
    "edges": edges,
    "masks": masks,
    "flicker": flicker,
    "scaling": scaling,
    "connectivity": connectivity,
    "foreground": foreground,
    "training": training,
    "transport": transport,
    "soak": soak,
}
LONG = ("soak",)
"""Not measured with all others, unless it is quick."""
FAILURES = (ExportError, ServerError, LaunchError, InstallationError)
"""What keeps a benchmark from running on this machine; every message is one line."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add every benchmark as a command whose options have a function `run`."""
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--quick", action="store_true", help=module.QUICK)
        add_output(command, f"out/{name}")
        command.set_defaults(run=run)


def add_output(command: argparse.ArgumentParser, folder: str) -> None:
    """Add where a command writes."""
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(folder),
        metavar="DIR",
        help="folder for the results (%(default)s)",
    )


def run(options: argparse.Namespace, line: str) -> int:
    """Run the benchmark `options.command`; return the exit code, 1 if the result has failed."""
    record = measure(options.command, options, line)
    return 1 if record.get("failed") else 0


def weights_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the SHA-256 of the checkpoint that a command line names, itself or by a repository."""
    if repository := getattr(options, "repository", None):
        path = newest_version(repository / MODEL) / WEIGHTS
    else:
        path = getattr(options, "weights", None)
    return {"weights": sha256(path)} if path and path.is_file() else {}


def measure(name: str, options: argparse.Namespace, line: str) -> dict:
    """Run a benchmark, print and write its result, and return it."""
    measured = BENCHMARKS[name].measure(options)
    text, weights = "", weights_of(options)
    try:
        # One that takes long yields what it has: it is written even where the rest is cut off.
        for result in measured if isinstance(measured, Iterator) else [measured]:
            record = new_record(name, line, weights | result)
            text = to_markdown(BENCHMARKS[name].render(record))
            write_files(options.output, {f"{name}.json": to_json(record), f"{name}.md": text})
    finally:
        print(text)  # also what could not be written
    print(options.output / f"{name}.json")
    return record
