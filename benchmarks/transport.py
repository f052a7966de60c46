"""What shared memory would save on the way to a server on the same machine and back.

The server has a model that does nothing: it answers with the trimap. So only the way of the pixels
is measured, over gRPC and through shared memory, in turns. Beside it stands the time that the
network takes on this machine.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.load import Client
from benchmarks.measure import Samples, in_turns, median, stopwatch
from benchmarks.service import add_server_arguments, picture_of, serving, what_serves
from benchmarks.tables import Section
from client.connection import MODEL, Matte
from server.launcher import launch

EXAMPLES = "example: python -m benchmarks transport"
QUICK = "small pictures, few rounds"
SIZES = ((1000, 1000), (2448, 3264))
"""1 and 8 megapixels."""
GRPC, SHARED, NETWORK = "gRPC", "shared memory", "server: compute_infer"
CONFIG = """
name: "dim"
backend: "python"
max_batch_size: 1
input [
  { name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] },
  { name: "trimap" data_type: TYPE_UINT8 dims: [ -1, -1, 1 ] }
]
output [ { name: "alpha" data_type: TYPE_UINT8 dims: [ -1, -1, 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
ECHO = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([alpha(r)]) for r in requests]

def alpha(request):
    pb.get_input_tensor_by_name(request, "image")
    return pb.Tensor.from_dlpack("alpha", pb.get_input_tensor_by_name(request, "trimap"))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: milliseconds of every round both ways, and of the network's answers."""
    sizes = [(64, 96)] if options.quick else SIZES
    rounds = {"warmup": 1, "most": 3} if options.quick else {"warmup": 3, "most": 30}
    cases = {}
    with echo_server() as url, Matte(url) as grpc, Matte(url, shm=True) as shared:
        for size in sizes:
            picture = picture_of(*size)
            assert all(np.array_equal(way.alpha(*picture), picture[1]) for way in (grpc, shared))
            timers = [
                stopwatch(name, partial(way.alpha, *picture, tile="off"))
                for name, way in ((GRPC, grpc), (SHARED, shared))
            ]
            title = "{}x{}".format(*size)
            cases[title] = in_turns(timers, title=title, **rounds)
    with serving(options.repository, options.url) as url, Client(url) as client:
        served = what_serves(url, options.repository)
        picture = picture_of(*sizes[0])
        network = in_turns([lambda: client.request(*picture)], warmup=0, most=3)[NETWORK]
    return {
        **asdict(served),
        "samples_ms": cases,
        "network_ms": network,
        "network_pixels": sizes[0][0] * sizes[0][1],
    }


@contextmanager
def echo_server() -> Iterator[str]:
    """Return the address of a server that answers with the trimap and lends its shared memory."""
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder, MODEL, "1")
        version.mkdir(parents=True)
        (version / "model.py").write_text(ECHO)
        (version.parent / "config.pbtxt").write_text(CONFIG)
        with launch(folder, shm=True) as server:
            yield server.grpc_url


def render(record: dict) -> list[Section]:
    """Return a record's table; the network's time grows with the pixels."""
    rows = []
    per_pixel = median(record["network_ms"]) / record["network_pixels"]
    for size, values in record["samples_ms"].items():
        height, width = map(int, size.split("x"))
        grpc, shared = (median(values[name]) for name in (GRPC, SHARED))
        network = per_pixel * height * width
        rows.append(
            {
                "size": size,
                "gRPC, ms": f"{grpc:.1f}",
                "shared memory, ms": f"{shared:.1f}",
                "saved, ms": f"{grpc - shared:.1f}",
                "the network, ms": f"{network:.0f}",
                "saved of both": f"{(grpc - shared) / (grpc + network):.2%}",
            }
        )
    first = next(iter(record["samples_ms"]))
    return [rows, f"The network was timed at {first}; a pixel takes as long at any size."]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return {
        f"{size}, {way}": values
        for size, ways in record["samples_ms"].items()
        for way, values in ways.items()
    }
