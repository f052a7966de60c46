"""TLS and mutual TLS with a real server and the certificates of docs/operations.md."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.connection import Matte
from client.errors import ServerRefusedError, ServerUnavailableError, TlsError
from client.tls import Tls
from server.launcher import launch

PAGE = Path(__file__).parents[2] / "docs/operations.md"
STRANGER = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout other.key -out other.pem"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities, and a server's and a client's certificate of the first."""
    folder = tmp_path_factory.mktemp("keys")
    recipe = PAGE.read_text().split("```sh keys\n")[1].split("```")[0]
    subprocess.run(["sh", "-euc", recipe + STRANGER], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=["ssl", "ssl-mutual"])
def encrypted(request, keys, standin_repository) -> Iterator[tuple[str, bool]]:
    """The address of a server, and whether it asks for the client's certificate."""
    flags = [
        f"--grpc-use-{request.param}=true",
        f"--grpc-server-cert={keys}/server.pem",
        f"--grpc-server-key={keys}/server.key",
        f"--grpc-root-cert={keys}/ca.pem",
    ]
    with launch(standin_repository, flags=flags) as server:
        yield server.grpc_url, request.param == "ssl-mutual"


def test_who_is_known_gets_an_alpha(encrypted, keys, picture, expected_alpha):
    url, is_mutual = encrypted
    own = (keys / "client.pem", keys / "client.key") if is_mutual else ()
    # Several servers share a certificate that names the first.
    for urls in (url, [url, url], url.replace("127.0.0.1", "localhost")):
        with Matte(urls, tls=Tls(keys / "ca.pem", *own)) as matte:
            np.testing.assert_array_equal(matte.alpha(*picture), expected_alpha(*picture))


def test_who_is_unknown_gets_none(encrypted, keys, picture):
    url, is_mutual = encrypted
    strangers = [None]
    if is_mutual:
        strangers += [
            Tls(keys / "ca.pem"),
            Tls(keys / "ca.pem", keys / "other.pem", keys / "other.key"),
        ]
    for tls in strangers:
        with (
            Matte(url, timeout=1, tls=tls) as matte,
            pytest.raises(ServerUnavailableError, match=r"Socket closed|reset"),
        ):
            matte.alpha(*picture)


def test_a_server_that_is_not_trusted_is_refused_at_once(encrypted, keys, picture):
    for tls in (Tls(keys / "other.pem"), Tls()):
        with (
            Matte(encrypted[0], tls=tls) as matte,
            pytest.raises(ServerRefusedError, match=r"no TLS connection to .* check --ca"),
        ):
            matte.alpha(*picture)


def test_tls_to_a_server_without(standin, keys, picture):
    with (
        Matte(standin.grpc_url, tls=Tls(keys / "ca.pem")) as matte,
        pytest.raises(ServerRefusedError, match="no TLS connection"),
    ):
        matte.alpha(*picture)


def test_files_that_are_no_certificates(keys):
    with pytest.raises(TlsError, match="missing: cannot be read"):
        Matte(tls=Tls(keys / "missing"))
    with pytest.raises(TlsError, match="names: is not PEM"):
        Matte(tls=Tls(keys / "names"))


def test_command_line(run, refuse, encrypted, keys, files):
    url, is_mutual = encrypted
    own = ("--cert", keys / "client.pem", "--key", keys / "client.key") if is_mutual else ()
    assert "--cert and --key must be given together" in refuse(*files, "-o", "a.png", "--cert", "x")
    assert "x: cannot be read" in refuse(*files, "-o", "a.png", "--ca", "x")
    code, _, err = run(*files, "-o", "a.png", "--ca", keys / "ca.pem", *own, url=url)
    assert (code, err) == (0, "")
