"""Measure and compare: is what is served equal to the network, and how fast is it?

examples:
  python -m benchmarks parity model_repository/dim/1/weights.safetensors
  python -m benchmarks latency --help
  python -m benchmarks report -o out/report
"""

import argparse
import os
import shlex
import sys

from server.launcher import HUGE_PAGES

# Other ways get what the server is given; before what takes seconds to import.
if __name__ == "__main__" and not HUGE_PAGES.keys() <= os.environ.keys():
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**HUGE_PAGES, **os.environ})

from benchmarks import readme, report, suite
from client.errors import AddressError
from matting.images import ImageError
from matting.signals import run_until_stopped
from train.checkpoint import CheckpointError
from train.layouts import DataError

WRONG_INPUT = (CheckpointError, DataError, ImageError, AddressError, OSError)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    suite.add_commands(commands)
    report.add_command(commands)
    readme.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options, shlex.join(["python", "-m", "benchmarks", *arguments]))
    except WRONG_INPUT as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except suite.FAILURES as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run_until_stopped("benchmarks", main))
