"""Addresses of servers, as people write them and as gRPC takes them."""

import socket
from ipaddress import ip_address

from client.errors import AddressError, ServerUnavailableError

DEFAULT_URL = "127.0.0.1:8001"
PORTS = range(1, 65536)


def grpc_target(urls: list[str]) -> str:
    """Turn ``host:port`` of one or more servers into gRPC's name for them.

    One server is named as it is; for several, gRPC takes a list of IPv4 addresses.

    Raises
    ------
    AddressError
        One is not ``host:port``, or its port is not from 1 to 65535.
    ServerUnavailableError
        One of several has no IPv4 address.
    """
    for url in urls:
        host, _, port = url.rpartition(":")
        if not host or not port.isdecimal() or "/" in url:
            raise AddressError(f"server is {url!r}, expected host:port, for example {DEFAULT_URL}")
        if int(port) not in PORTS:
            raise AddressError(f"server is {url!r}, expected a port from 1 to {PORTS[-1]}")
    if len(urls) == 1:
        return urls[0]
    return "ipv4:" + ",".join(_ipv4(url) for url in urls)


def is_loopback(url: str) -> bool:
    """Whether a server's ``host:port`` is on this machine by its name alone."""
    host = url.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another machine's name
        return False


def _ipv4(url: str) -> str:
    host, _, port = url.rpartition(":")
    try:
        return f"{socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]}:{port}"
    except (OSError, UnicodeError) as error:  # of a label that is empty or too long
        raise ServerUnavailableError(
            f"{host!r} has no IPv4 address ({error.args[-1]}); check --url"
        ) from error
