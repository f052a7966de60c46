"""The page as a program, `python -m client.page`: its command line, and who may ask it for what."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

if find_spec("gradio") is None:
    pytest.skip("needs the extra `page`", allow_module_level=True)

from client.page.__main__ import main
from matting.images import MAX_PIXELS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(standin, tmp_path_factory, open_page) -> Iterator[str]:
    """The address of a page."""
    with open_page(standin.grpc_url, tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--url=localhost", "expected host:port"),
        ("--ca=missing", "missing: cannot be read"),
        ("--url=nosuch.invalid:1", "'nosuch.invalid' has no IPv4 address"),
    ],
)
def test_wrong_options_are_one_line(capsys, option, message):
    assert main([option, "--url", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("host", ["::1", ""])
def test_a_host_of_ipv6_or_without_a_name_is_one_line(capsys, host):
    with pytest.raises(SystemExit, match="2"):
        main([f"--host={host}"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"argument --host: {host} is not an IPv4 address or host name (no port)")


@pytest.mark.parametrize("port", ["99999", "0", "-1", "http"])
def test_wrong_ports_are_one_line(capsys, port):
    with pytest.raises(SystemExit, match="2"):
        main([f"--port={port}"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"argument --port: {port} is not a port from 1 to 65535")


def test_a_taken_port_is_one_line(page, capfd, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    port = page.rpartition(":")[2]
    assert main(["--port", port]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(
        rf"error: no page at 127.0.0.1:{port} .*try another --host or --port\n", error
    )


@pytest.mark.parametrize("host", ["gpu..local", "ü.local", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_one_line(host, capfd, monkeypatch, free_port):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    port = free_port()
    assert main(["--host", host, "--port", str(port)]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: no page at {host}:{port} .*try another --host or --port\n", error)


def test_from_a_terminal_with_a_display_a_browser_is_opened(standin, free_port, tmp_path):
    """And a terminal that is closed stops the page, of which nothing is left."""
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" >> "$0.log"\n')
    browser.chmod(0o755)
    ours, terminal = pty.openpty()
    lines = os.fdopen(ours, "rb", buffering=0)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    display = {"DISPLAY": ":9", "BROWSER": f"{browser} %s"}
    environment = {**os.environ, **display, "TMPDIR": str(temporary)}
    port = free_port()
    command = [sys.executable, "-m", "client.page", "--url", standin.grpc_url, "--port", str(port)]
    for options, opened in ((["--no-browser"], False), ([], True)):
        with subprocess.Popen(
            command + options, cwd=ROOT, env=environment, stdout=terminal
        ) as process:
            said = lines.readline()  # with its end, which may come later
            process.send_signal(signal.SIGHUP)
        assert said.startswith(b"open http") and process.returncode == 0
        assert not list(temporary.iterdir())
        log = tmp_path / "browser.log"
        assert log.exists() == opened
    assert log.read_text() == f"http://127.0.0.1:{port}/\n"
    lines.close()
    os.close(terminal)


def status(url, data=None, **headers):
    """What HTTP answers: 200 and so on."""
    try:
        with urlopen(Request(url, data, headers)) as answer:
            return answer.status
    except HTTPError as refused:
        return refused.code


def test_nobody_can_see_what_others_did(page):
    assert status(f"{page}/gradio_api/runs") == 404
    assert status(f"{page}/monitoring") == status(f"{page}/monitoring/summary") == 403


def test_other_sites_can_ask_for_nothing(page):
    port = page.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert status(f"{page}/config", Host=host, Origin=f"http://{host}") == 200
        for origin in ("http://evil.example", "http://localhost:1", "null"):
            assert status(f"{page}/gradio_api/upload", b"", Host=host, Origin=origin) == 403
    for host in (f"evil.example:{port}", "["):  # a name of 127.0.0.1
        assert status(f"{page}/config", Host=host) == 403


@pytest.mark.parametrize(
    ("listening", "is_known"), [("0.0.0.0", True), ("Lab.example", True), ("192.0.2.1", False)]
)
def test_names_of_the_page(listening, is_known):
    import fastapi

    from client.page.layout import check_site

    request = fastapi.Request({"type": "http", "headers": [(b"host", b"lab.example:7860")]})
    with (
        nullcontext() if is_known else pytest.raises(fastapi.HTTPException, match="answers only at")
    ):
        check_site(listening)(request)


def test_files_that_are_larger_than_any_photo_are_not_taken(page):
    with urlopen(f"{page}/config") as answer:
        assert json.load(answer)["max_file_size"] == 8 * MAX_PIXELS
