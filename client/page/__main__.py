# PYTHON_ARGCOMPLETE_OK
"""Open a page on this machine for matting photos in a browser: ``python -m client.page``."""

import argparse
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.request import getproxies_environment

import argcomplete

from client.address import PORTS
from client.arguments import add_connection, check_connection, tls_of, urls_of
from client.connection import Matte
from client.errors import AddressError, ServerError, TlsError
from matting.signals import stop_as_with_ctrl_c

LOOPBACK, PORT = "127.0.0.1", 7860
STARTING = 20.0
"""Seconds that a server which was started together with the page may take."""


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C; return the program's exit code."""
    options = _parse(arguments)
    logging.basicConfig(format="%(message)s")
    stop_as_with_ctrl_c()
    urls = urls_of(options)
    try:
        with (
            TemporaryDirectory(prefix="matte-page-") as folder,
            Matte(urls, options.timeout, "interactive", tls_of(options)) as matte,
        ):
            _serve(matte, urls, Path(folder), options)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: pip install -e '.[page]'", 2)
    except (AddressError, ServerError, TlsError) as error:
        return _fail(error, 2)
    except OSError as error:
        place = f"{options.host}:{options.port}"
        return _fail(f"no page at {place} ({error}); try another --host or --port", 1)
    except KeyboardInterrupt:
        return 0


def _serve(
    matte: Matte, urls: Sequence[str], folder: Path, options: argparse.Namespace
) -> NoReturn:
    """Serve the page, whose photos are in the folder, until an exception ends it."""
    _check_address(options.host, options.port)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # which Gradio takes when it is imported
    # It would keep a list of runs in the browser, with links to their pictures.
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    _call_without_proxy(options.host)
    from client.page.layout import build, launch

    page = build(matte, folder)
    try:
        launch(page, options.host, options.port, inbrowser=options.browser and _has_screen())
        print(
            f"open http://{options.host}:{options.port} in a browser; photos are sent to "
            f"{' or '.join(urls)}; Ctrl-C stops it",
            flush=True,
        )
        _warn_without_server(matte)
        while True:
            time.sleep(3600)
    finally:
        page.close(verbose=False)


def _check_address(host: str, port: int) -> None:
    """Raise the `OSError` of listening there: uvicorn's own lines say less, or are a traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m client.page",
        description="Serve a page for matting photos in a browser, using a Triton server.",
    )
    parser.add_argument(
        "--host",
        type=_host,
        default=LOOPBACK,
        help="address to listen on (%(default)s: this machine only; on any other, anybody who "
        "can reach it may use the page, and nothing is encrypted). Browsers have to open the page "
        "at this address or as localhost; with 0.0.0.0 any name works, and a proxy in front has "
        "to forward the browser's Host header",
    )
    parser.add_argument("--port", type=_port, default=PORT, help="port of the page (%(default)s)")
    parser.add_argument(
        "--no-browser",
        dest="browser",
        action="store_false",
        help="do not open a browser (by default one opens if there is a terminal and a display)",
    )
    add_connection(parser)
    argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    check_connection(parser, options)
    return options


def _host(text: str) -> str:
    if ":" in text or not text:
        raise argparse.ArgumentTypeError(f"{text} is not an IPv4 address or host name (no port)")
    return text


def _port(text: str) -> int:
    if text.isdecimal() and int(text) in PORTS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a port from 1 to {PORTS[-1]}")


def _call_without_proxy(host: str) -> None:
    """Gradio asks the page whether it is there: a proxy would look for it on its own machine."""
    others = getproxies_environment().get("no")
    os.environ["no_proxy"] = ",".join(filter(None, (others, host, "localhost", LOOPBACK)))


def _has_screen() -> bool:
    """Whether somebody sits here, who could be shown a browser."""
    has_display = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return sys.stdout.isatty() and (has_display or sys.platform in ("darwin", "win32"))


def _warn_without_server(matte: Matte) -> None:
    try:
        matte.wait_until_ready(STARTING)
    except ServerError as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
