"""Encrypted connections: whom the client trusts, and who it says it is."""

from dataclasses import dataclass
from pathlib import Path

from client.errors import TlsError


@dataclass(frozen=True)
class Tls:
    """TLS, or mutual TLS where the client has a certificate too. All files are PEM.

    Attributes
    ----------
    ca : Path or None
        Certificates that the server's must be signed by; None for those that gRPC brings along.
        The server's certificate must name the host of the first ``--url``.
    certificate, key : Path or None
        The client's own, both or neither.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def channel(self) -> dict[str, object]:
        """Return the arguments of tritonclient's connection.

        Raises
        ------
        TlsError
            A file cannot be read or is not PEM.
        """
        files = {
            "root_certificates": self.ca,
            "certificate_chain": self.certificate,
            "private_key": self.key,
        }
        arguments: dict[str, object] = {"ssl": True}
        for name, path in files.items():
            if path is not None:
                _check_pem(path)
                arguments[name] = str(path)
        return arguments


def _check_pem(path: Path) -> None:
    try:
        is_pem = b"-----BEGIN " in path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_pem:
        raise TlsError(f"{path}: is not PEM; expected a file with -----BEGIN ...----- in it")
