"""Matte the shipped photograph through a real Triton server; `sh demo/run.sh` calls this.

Writes alpha.png, cutout.png, composite.png and contact_sheet.png.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np

from matting.compositing import checkerboard, composite
from matting.images import ImageError, check_writable, read_cutout, read_image, write_image
from matting.signals import stop_as_with_ctrl_c
from server.installation import InstallationError
from server.launcher import LaunchError, Server, launch

ROOT = Path(__file__).resolve().parents[1]
PHOTO, TRIMAP, BACKGROUND = (
    ROOT / "demo" / name for name in ("photo.jpg", "trimap.png", "background.jpg")
)


def main() -> int:
    """Run the demo; return the program's exit code."""
    arguments = _parse_arguments()
    stop_as_with_ctrl_c()
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        check_writable(arguments.output / "alpha.png")
        run(arguments.output, arguments.keep)
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError:  # the client has said why
        return 1
    except (InstallationError, LaunchError) as error:
        return _fail(error, 1)
    except (ImageError, OSError) as error:
        return _fail(error, 2)
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sh demo/run.sh",
        description="Matte a photograph through a real Triton server.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=ROOT / "out",
        metavar="DIR",
        help="folder to write to (out)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the server running and say how to call it"
    )
    return parser.parse_args()


def _fail(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def run(folder: Path, keep: bool) -> None:
    """Start the server, call it as a user would, show what came back."""
    alpha, cutout, composited, sheet = outputs = [
        folder / f"{name}.png" for name in ("alpha", "cutout", "composite", "contact_sheet")
    ]
    with ExitStack() as stack:
        with _timed("tritonserver started, model loaded"):
            server = stack.enter_context(launch(ROOT / "model_repository", keep=keep))
        call = _client_call(server, alpha)
        with _timed("photograph matted by client/matte.py over gRPC"):
            extras = ["--cutout", cutout, "--background", BACKGROUND, "--composite", composited]
            subprocess.run([*call, *extras, "--quiet"], check=True)
        with _timed("contact sheet drawn"):
            write_image(sheet, draw_contact_sheet(alpha, cutout, composited))
        if not keep:
            with _timed("tritonserver stopped"):
                stack.close()
    print("\nwritten:", *map(_shown, outputs), sep="\n  ")
    if keep:
        print(f"\ntritonserver is still running; call it:\n  {shlex.join(map(_shown, call))}")
        print(f"stop it:\n  kill {server.process.pid}")


def _client_call(server: Server, alpha: Path) -> list[Path | str]:
    client = ROOT / "client" / "matte.py"
    inputs = [PHOTO, TRIMAP, "--knn"]
    return [Path(sys.executable), client, *inputs, "-o", alpha, "--url", server.grpc_url]


def _shown(part: Path | str) -> str:
    return os.path.relpath(part) if isinstance(part, Path) else part


@contextmanager
def _timed(step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.2f} s  {step}", flush=True)


def draw_contact_sheet(alpha: Path, cutout: Path, composited: Path) -> np.ndarray:
    """Put the whole story side by side, labelled: H x W x 3 uint8 RGB."""
    colours, transparency = read_cutout(cutout)
    pictures = {
        "image": read_image(PHOTO),
        "trimap": read_image(TRIMAP),
        "alpha": read_image(alpha),
        "cut-out": composite(transparency, colours, checkerboard(*transparency.shape)),
        "composite": read_image(composited),
    }
    return np.concatenate(
        [_labelled(picture, label) for label, picture in pictures.items()], axis=1
    )


def _labelled(picture: np.ndarray, label: str) -> np.ndarray:
    """Add a white margin with the label above the picture."""
    framed = cv2.copyMakeBorder(picture, 36, 8, 8, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return cv2.putText(
        framed, label, (8, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 1, cv2.LINE_AA
    )


if __name__ == "__main__":
    sys.exit(main())
