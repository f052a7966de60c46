"""Downloads from a real local server that behaves in every way servers do."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from train import fetch as module
from train.fetch import FetchError, fetch, main

CONTENT = os.urandom(3_000_000)
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT as `behaviour` says, and notes the ranges it was asked for."""

    def do_GET(self) -> None:
        server, start, status = self.server, 0, 200
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if server.behaviour == "loops" or (server.behaviour == "moved" and "/dim/" in self.path):
            self.send_response(302)
            self.send_header("Location", self.path.replace("/dim/", "/new/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        password = self.headers.get("Proxy-Authorization")
        if server.behaviour == "wants a password" and password != "Basic bWU6cEDigqw=":
            self.send_error(407)
            return
        if server.behaviour == "missing":
            self.send_error(404)
            return
        if server.behaviour == "busy" and len(server.ranges) < 3:
            self.send_response(503)
            self.send_header("Retry-After", "3600")
            self.end_headers()
            return
        if asked and server.behaviour != "ignores ranges":
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = bytes(len(CONTENT)) if server.behaviour == "wrong" else CONTENT[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks = server.behaviour in ("breaks", "ignores ranges") and len(server.ranges) < 3
        self.wfile.write(body[:1_200_000] if breaks else body)

    def do_CONNECT(self) -> None:
        self.server.ranges.append(self.path)
        self.send_error(403)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setitem(module.PUBLISHED, "stage3", NAME)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.ranges, server.behaviour = [], "works"
    server.url = f"http://127.0.0.1:{server.server_port}/dim"
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def assert_fetched(path, folder):
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]


def test_a_file_arrives_and_is_kept(server, tmp_path):
    assert_fetched(fetch("stage3", tmp_path / "new", server.url), tmp_path / "new")
    assert_fetched(fetch("stage3", tmp_path / "new", server.url), tmp_path / "new")
    assert server.ranges == [None]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.behaviour = "breaks"
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)
    kept = 1_200_000 // module.BLOCK * module.BLOCK  # of what came each time, whole blocks
    assert server.ranges == [None, f"bytes={kept}-", f"bytes={2 * kept}-"]


def test_a_download_goes_on_in_a_later_run(server, tmp_path):
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT[:2_000_000])
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)
    assert server.ranges == ["bytes=2000000-"]


def test_a_whole_partial_file_is_taken(server, tmp_path):
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT)
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_server_that_ignores_ranges_sends_all_again(server, tmp_path):
    server.behaviour = "ignores ranges"
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)
    assert len(server.ranges) == 3


def test_a_file_that_has_moved_is_followed(server, tmp_path):
    server.behaviour = "moved"
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT[:2_000_000])
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)
    assert server.ranges == ["bytes=2000000-"] * 2


def test_a_file_that_moves_on_and_on_is_given_up(server, tmp_path):
    server.behaviour = "loops"
    with pytest.raises(FetchError, match="the server answered 302 Found"):
        fetch("stage3", tmp_path, server.url)
    assert len(server.ranges) == 1 + 5


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.behaviour = "busy"
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", f"127.0.0.1:{server.server_port}")
    assert_fetched(fetch("stage3", tmp_path, "http://weights.invalid/dim"), tmp_path)
    (tmp_path / NAME).unlink()
    with pytest.raises(FetchError, match=r"the connection failed \(ProxyError\)"):
        fetch("stage3", tmp_path, "https://weights.invalid/dim")
    assert server.ranges == [None, *["weights.invalid:443"] * module.ATTEMPTS]


def test_a_proxy_gets_its_password(server, tmp_path, monkeypatch):
    server.behaviour = "wants a password"
    proxy = f"http://me:p%40%E2%82%AC@127.0.0.1:{server.server_port}"
    monkeypatch.setenv("http_proxy", proxy)
    assert_fetched(fetch("stage3", tmp_path, "http://weights.invalid/dim"), tmp_path)


def test_other_proxies_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://me:p%40ss@127.0.0.1:1")
    with pytest.raises(FetchError, match=r"^http_proxy begins with socks5://, expected http or ht"):
        fetch("stage3", tmp_path, "http://weights.invalid/dim")


def test_wrong_bytes_are_refused_and_removed(server, tmp_path):
    server.behaviour = "wrong"
    with pytest.raises(FetchError, match="SHA-256"):
        fetch("stage3", tmp_path, server.url)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_of_that_name_is_replaced(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"damaged")
    assert_fetched(fetch("stage3", tmp_path, server.url), tmp_path)


def test_the_command_says_what_failed_in_one_line(server, tmp_path, capsys):
    server.behaviour = "missing"
    assert main(["stage3", "-o", str(tmp_path), "--source", server.url]) == 1
    output, error = capsys.readouterr()
    assert output == ""
    assert error == f"train.fetch: {server.url}/{NAME}: the server answered 404 Not Found\n"
    assert len(server.ranges) == 1  # not worth asking again


def test_the_command_prints_the_path(server, tmp_path, capsys):
    assert main(["stage3", "-o", str(tmp_path), "--source", server.url]) == 0
    assert capsys.readouterr().out == f"{tmp_path / NAME}\n"


def test_no_server(server, tmp_path, capsys):
    server.shutdown()
    server.server_close()
    assert main(["stage3", "-o", str(tmp_path), "--source", server.url]) == 1
    error = capsys.readouterr().err
    assert "the connection failed" in error
    assert error.count("\n") == 1


def test_no_encryption(server, tmp_path):
    with pytest.raises(FetchError, match=r"the connection failed \(SSLError\), 5 times"):
        fetch("stage3", tmp_path, server.url.replace("http:", "https:"))


def test_a_folder_that_is_a_file(server, tmp_path, capsys):
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file")
    assert main(["stage3", "-o", folder, "--source", server.url]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_stage_that_is_not_published(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["stage4"])
    assert caught.value.code == 2


@pytest.mark.parametrize("source", ["example.org/weights", "ftp://example.org", "http://[::1"])
def test_a_source_that_is_no_url_is_refused(source, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["stage3", "--source", source])
    assert f"{source} is not a valid URL with http:// or https://" in capsys.readouterr().err
