"""Options of gRPC channels: use all servers, and notice soon when one returns or vanishes."""

import json
from collections.abc import Sequence

from client.address import is_loopback

OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own defaults, 1 s growing to 120 s, find a restarted server too late.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]

PINGS_BORNE = 3
"""While a server sends nothing, with Triton's defaults (max-ping-strikes 2 within 5 minutes).

Measured with Triton 2.51 and a request of 6 s: one every 1.6 s is tolerated; with one every 1.0 s
the server hangs up, and the request has to be sent again.
"""
PING_PAUSE = (10.0, 300.0)
"""Least and most seconds between pings; at the most, Triton tolerates any number of them."""
PING_TIMEOUT = 20.0
"""Seconds until a ping must be answered."""


def channel_options(urls: Sequence[str], timeout: float) -> list[tuple[str, int | str]]:
    """Return the options of a channel to servers, whose requests may take `timeout` seconds."""
    # No proxy leads to this machine, and a list of addresses would reach a proxy as one name.
    uses_proxy = len(urls) == 1 and not is_loopback(urls[0])
    return [
        *OPTIONS,
        *_ping_options(timeout),
        ("grpc.enable_http_proxy", int(uses_proxy)),
        # A list of addresses has no name of its own that a certificate could have.
        ("grpc.default_authority", urls[0]),
    ]


def _ping_options(timeout: float) -> list[tuple[str, int]]:
    """Notice during a request of `timeout` seconds that a machine has vanished without a word."""
    shortest, longest = PING_PAUSE
    pause = min(max(timeout / PINGS_BORNE, shortest), longest)
    return [
        ("grpc.keepalive_time_ms", round(1000 * pause)),
        ("grpc.keepalive_timeout_ms", round(1000 * PING_TIMEOUT)),
        ("grpc.http2.ping_timeout_ms", round(1000 * PING_TIMEOUT)),  # else 60 s, whatever the other
        ("grpc.http2.max_pings_without_data", 0),  # it is limited by the pause
    ]
