"""Run tritonserver with a model repository until Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from server.installation import InstallationError
from server.launcher import LOOPBACK, START_TIMEOUT, LaunchError, launch

EXAMPLES = """examples:
  python -m server
  python -m server --grpc-port 9001 --http-port 9000 --metrics-port 9002
  python -m server -- --model-config-name=tensorrt --log-verbose=1   (flags of tritonserver's own)
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, the program's own if None; a mistake ends the program with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Run tritonserver, from PATH or else the nvidia-pytriton wheel, until Ctrl-C.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        help="model repository to serve (%(default)s)",
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="IPv4 address or name on which gRPC listens, 0.0.0.0 for all (%(default)s)",
    )
    parser.add_argument(
        "--http-host",
        default=LOOPBACK,
        help="the same for HTTP (health) and metrics, which are never encrypted (%(default)s)",
    )
    parser.add_argument("--grpc-port", type=int, default=8001, help="gRPC port (%(default)s)")
    parser.add_argument("--http-port", type=int, default=8000, help="HTTP port (%(default)s)")
    parser.add_argument("--metrics-port", type=int, default=8002, help="metrics port (%(default)s)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=START_TIMEOUT,
        help="seconds within which all models have to be loaded and warmed up (%(default)s)",
    )
    parser.add_argument(
        "--shm",
        action="store_true",
        help="let clients on this machine pass pixels through shared memory (client: --shm)",
    )
    parser.add_argument("flags", nargs="*", help="after --: flags for tritonserver")
    return parser.parse_args(arguments)


def main() -> int:
    """Serve until Ctrl-C, or until the server ends; return the program's exit code."""
    arguments = parse_arguments()
    # `kill`, and a terminal that is closed, end the server as Ctrl-C does; `nohup` ignores SIGHUP.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        with launch(**vars(arguments), log=sys.stderr) as server:
            print(
                f"ready: gRPC {server.grpc_url}, HTTP {server.http_url}, "
                f"metrics {server.metrics_url}/metrics; Ctrl-C stops it",
                flush=True,
            )
            reason = server.wait()
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (InstallationError, LaunchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _stop(*_: object) -> NoReturn:
    # A terminal that is closed sends it twice, by the shell as well; another Ctrl-C is impatience.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
