"""Requests of every kind, by the thousand, over gRPC and HTTP: the server answers each, and lives.

Over HTTP it takes no photos at all, so there the answer is always no.

    python -m pytest tests/server/test_inputs_fuzz.py --hypothesis-profile=long

sends a hundred thousand over each, new ones with every run.
"""

import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from server.launcher import Server, launch

INFER = "/inference.GRPCInferenceService/ModelInfer"
PATIENCE = 60
"""Seconds for an answer: far more than it takes."""

# The tiny network fails beyond 999 columns.
WIDTHS = st.one_of(st.integers(1, 9), st.integers(1, 9), st.integers(998, 1001))
DIMENSIONS = st.one_of(
    st.integers(-2, 9), st.sampled_from([2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)])
)
NAMES = st.one_of(st.sampled_from(["image", "trimap", "alpha", "IMAGE", ""]), st.text(max_size=9))
DATATYPES = st.sampled_from(
    ["UINT8", "BOOL", "INT8", "UINT16", "INT64", "FP16", "FP32", "BF16", "BYTES", "uint8", "X", ""]
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["priority", "timeout", "sequence_id", "binary_data_size", "shared_memory_region", "new"]
    ),
    st.one_of(st.integers(-1, 9), st.just(2**63 - 1), st.booleans(), st.text(max_size=5)),
    max_size=2,
)


@dataclass(frozen=True)
class Tensor:
    """An input as it goes over the wire, whether or not its parts fit each other."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Inputs:
    """What is sent; the alpha that must come, where nothing is wrong with it."""

    tensors: list[Tensor]
    alpha: np.ndarray | None


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    """Draw an image and a trimap, and up to three things that are wrong with them."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(WIDTHS))
    pixels = np.random.default_rng(draw(st.integers(0, 9)))
    image = pixels.integers(0, 256, (*shape, 3), np.uint8)
    trimap = pixels.integers(0, 256, (*shape, 1), np.uint8)
    tensors = [
        Tensor(name, "UINT8", list(array.shape), array.tobytes())
        for name, array in (("image", image), ("trimap", trimap))
    ]
    wrongs = draw(st.integers(0, 3))
    for _ in range(wrongs):
        if tensors:
            at = draw(st.integers(0, len(tensors) - 1))
            tensors[at : at + 1] = damaged(draw, tensors[at])
    is_sound = wrongs == 0 and shape[2] <= 999
    return Inputs(tensors, np.maximum(image[..., :1], trimap) if is_sound else None)


def damaged(draw: st.DrawFn, tensor: Tensor) -> list[Tensor]:
    """Return what takes the tensor's place: with something wrong, twice, or nothing."""
    kind = draw(st.sampled_from(["name", "type", "dimension", "rank", "data", "none", "twice"]))
    if kind == "name":
        return [replace(tensor, name=draw(NAMES))]
    if kind == "type":
        return [replace(tensor, datatype=draw(DATATYPES))]
    if kind == "dimension":
        at = draw(st.integers(0, len(tensor.shape)))
        shape = [*tensor.shape[:at], draw(DIMENSIONS), *tensor.shape[at + 1 :]]
        return [replace(tensor, shape=shape)]
    if kind == "rank":
        return [replace(tensor, shape=draw(st.lists(DIMENSIONS, max_size=6)))]
    if kind == "data":
        cut = draw(st.integers(0, len(tensor.data) + 9))
        return [replace(tensor, data=(tensor.data + b"123456789")[:cut])]
    return [] if kind == "none" else [tensor, tensor]


@pytest.fixture(scope="module")
def server(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that does not wait for company."""
    folder = tmp_path_factory.mktemp("fuzz") / "repository"
    shutil.copytree(tiny_repository, folder)
    config = folder / "dim/config.pbtxt"
    config.write_text(
        config.read_text().replace(
            "max_queue_delay_microseconds: 100000", "max_queue_delay_microseconds: 0"
        )
    )
    with launch(folder) as running:
        yield running


@pytest.fixture(scope="module")
def ask(server: Server) -> Iterator[Callable[[bytes], bytes]]:
    """Send bytes as the message of a gRPC request and return those of the answer."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        infer = channel.unary_unary(INFER)
        yield lambda message: infer(message, timeout=PATIENCE)


@pytest.fixture(scope="module")
def lives(server: Server, ask: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Check that the server answers a good request, with the process that it began with."""

    def processes() -> list[tuple[int, str]]:
        return [(p.pid, p.status()) for p in psutil.Process(server.process.pid).children()]

    at_first = [pid for pid, _ in processes()]
    pixels = [Tensor("image", "UINT8", [1, 1, 1, 3], b"abc")]
    good = message_of([*pixels, Tensor("trimap", "UINT8", [1, 1, 1, 1], b"\x7f")])

    def check() -> None:
        assert ModelInferResponse.FromString(ask(good)).raw_output_contents == [b"\x7f"]
        assert [pid for pid, status in processes() if status != psutil.STATUS_ZOMBIE] == at_first

    return check


def message_of(tensors: list[Tensor], parameters: dict | None = None) -> bytes:
    """Return a gRPC request's message."""
    request = ModelInferRequest(model_name="dim")
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.data)
    for name, value in (parameters or {}).items():
        kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
        setattr(request.parameters[name], kinds[type(value)], value)
    return request.SerializeToString()


SCRATCHES = st.lists(st.tuples(st.integers(0, 9999), st.binary(max_size=4)), max_size=2)
"""Bytes to be replaced by others, and where."""


def scratched(message: bytes, scratches: list[tuple[int, bytes]]) -> bytes:
    for at, value in scratches:
        at %= max(len(message), 1)
        message = message[:at] + value + message[at + len(value) :]
    return message


@given(sent=inputs(), parameters=PARAMETERS, scratches=SCRATCHES)
def test_grpc(
    ask: Callable[[bytes], bytes],
    lives: Callable[[], None],
    sent: Inputs,
    parameters: dict,
    scratches: list,
) -> None:
    is_sound = sent.alpha is not None and not parameters and not scratches
    try:
        answer = ModelInferResponse.FromString(
            ask(scratched(message_of(sent.tensors, parameters), scratches))
        )
    except grpc.RpcError as error:
        assert not is_sound and error.code() != grpc.StatusCode.DEADLINE_EXCEEDED, error
    else:
        if is_sound:
            assert answer.outputs[0].shape == list(sent.alpha.shape)
            assert answer.raw_output_contents == [sent.alpha.tobytes()]
    lives()


@given(
    sent=inputs(),
    scratches=SCRATCHES,
    head=st.one_of(st.none(), st.integers(-1, 999), st.sampled_from([2**64, "", "x"])),
)
def test_http(
    server: Server,
    lives: Callable[[], None],
    sent: Inputs,
    scratches: list,
    head: int | str | None,
) -> None:
    tensors = [vars(tensor) | {"data": list(tensor.data)} for tensor in sent.tensors]
    body = scratched(json.dumps({"inputs": tensors}).encode(), scratches)
    headers = {} if head is None else {"Inference-Header-Content-Length": str(head)}
    with closing(http.client.HTTPConnection(server.http_url, timeout=PATIENCE)) as connection:
        connection.request("POST", "/v2/models/dim/infer", body, headers)
        assert connection.getresponse().status == http.HTTPStatus.FORBIDDEN
    lives()
