"""One photo's id, from the client's output through the server's log to an OpenTelemetry trace."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
import tritonclient.grpc as grpc

from client.matte import main
from client.request import Request
from matting.images import write_image
from server.launcher import Server, launch

PHOTOS = 8
"""Triton 2.51 gives 1 in 20 a trace of its own instead of the client's: not to all of these."""


@contextmanager
def collector() -> Iterator[tuple[str, Queue]]:
    """Take OpenTelemetry's spans over HTTP: the address to send to, and what came."""
    received: Queue = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            received.put(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
        server.shutdown()


def test_a_photo_has_one_name_everywhere(
    quick_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photo, trimap, log = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "log"
    write_image(photo, np.zeros((8, 8, 3), np.uint8))
    write_image(trimap, np.full((8, 8), 128, np.uint8))
    with collector() as (url, received), log.open("w") as file:
        flags = [
            "--log-verbose=1",
            "--log-format=ISO8601",
            "--trace-config=mode=opentelemetry",
            f"--trace-config=opentelemetry,url={url}",
            "--trace-config=rate=1",
            "--trace-config=level=TIMESTAMPS",
        ]
        with launch(quick_repository, flags=flags, log=file) as server:
            for number in range(PHOTOS):
                output = tmp_path / f"{number}.png"
                arguments = [photo, trimap, "-o", output, "--url", server.grpc_url, "--json"]
                assert main([str(argument) for argument in arguments]) == 0
            traces = traces_of(received)
    requests = [json.loads(line)["request"] for line in capsys.readouterr().out.splitlines()]
    (line, *_) = [line for line in log.read_text().splitlines() if requests[0] in line]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}Z ", line)
    assert f"[request id: {requests[0]}]" in line
    assert sorted(request for request, _ in traces.values()) == sorted(requests)
    assert all(names >= {"InferRequest", "dim", "compute"} for _, names in traces.values())
    assert any(trace == request for trace, (request, _) in traces.items())


def test_an_answer_has_its_requests_id(
    tiny_server: Server, random_pair: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    inputs = [
        grpc.InferInput(name, array.shape, "UINT8").set_data_from_numpy(array)
        for name, array in zip(("image", "trimap"), random_pair(8, 8), strict=True)
    ]
    with grpc.InferenceServerClient(tiny_server.grpc_url) as client:
        answer = client.infer("dim", inputs, request_id=Request("5" * 32).id)
    assert answer.get_response().id == "5" * 32


def traces_of(received: Queue) -> dict[str, tuple[str, set[str]]]:
    """Return each trace's request id and names of spans, by trace id, once all have come."""
    names: dict[str, set[str]] = {}
    requests: dict[str, str] = {}
    while len(requests) < PHOTOS or any("InferRequest" not in names[trace] for trace in requests):
        resources = received.get(timeout=60)["resourceSpans"]
        for span in [s for r in resources for scope in r["scopeSpans"] for s in scope["spans"]]:
            trace = span["traceId"].lower()
            names.setdefault(trace, set()).add(span["name"])
            for attribute in span.get("attributes", []):
                if attribute["key"] == "triton.request_id":
                    requests[trace] = attribute["value"]["stringValue"]
    return {trace: (request, names[trace]) for trace, request in requests.items()}
