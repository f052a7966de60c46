"""Requests of every kind, by the thousand, over gRPC and HTTP: the server answers each, and lives.

Over gRPC they come one by one and in streams, their data raw or typed. Over HTTP it takes no photos
at all, so there the answer is always no.

    python -m pytest tests/server/test_inputs_fuzz.py --hypothesis-profile=long

sends a hundred thousand over each, new ones with every run.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.message import Message as ProtobufMessage
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

from server.launcher import Server, launch

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
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
VALUES = st.one_of(
    st.integers(-1, 9),
    st.sampled_from([2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, float("nan")]),
    st.booleans(),
    st.text(max_size=5),
)


def parameters(*names: str) -> st.SearchStrategy[dict]:
    return st.dictionaries(st.sampled_from([*names, "new"]), VALUES, max_size=2)


OF_REQUESTS = parameters(
    "priority", "timeout", "sequence_id", "sequence_start", "triton_enable_empty_final_response"
)
SHARED_MEMORY = [f"shared_memory_{what}" for what in ("region", "byte_size", "offset")]
OF_INPUTS = parameters(*SHARED_MEMORY, "binary_data_size")
OUTPUTS = st.one_of(
    st.sampled_from([[], [("alpha", {})]]),
    st.lists(
        st.tuples(NAMES, parameters(*SHARED_MEMORY, "classification", "binary_data")), max_size=3
    ),
)
"""What is asked for: names, each with parameters."""

TYPED = {
    "uint_contents": int,
    "bool_contents": bool,
    "int_contents": int,
    "int64_contents": int,
    "uint64_contents": int,
    "fp32_contents": float,
    "fp64_contents": float,
    "bytes_contents": lambda value: bytes(value % 5),
}
"""Where a tensor's data may be instead of in raw bytes, and what they are there."""


@dataclass(frozen=True)
class Tensor:
    """An input as it goes over the wire, whether or not its parts fit each other."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes = field(repr=False)
    place: str = "raw_input_contents"
    parameters: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """What is sent; the alpha that must come, where nothing is wrong with it."""

    tensors: list[Tensor]
    alpha: np.ndarray | None


@dataclass(frozen=True)
class Message:
    """A gRPC request's bytes, some of which may be wrong; the alpha, where nothing is."""

    data: bytes
    is_scratched: bool
    alpha: np.ndarray | None


@st.composite
def inputs(draw: st.DrawFn, most_wrongs: int = 3) -> Inputs:
    """Draw an image and a trimap, and up to so many things that are wrong with them."""
    place = draw(st.sampled_from(["raw_input_contents", "uint_contents"]))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(WIDTHS))
    pixels = np.random.default_rng(draw(st.integers(0, 9)))
    image = pixels.integers(0, 256, (*shape, 3), np.uint8)
    trimap = pixels.integers(0, 256, (*shape, 1), np.uint8)
    tensors = [
        Tensor(name, "UINT8", list(array.shape), array.tobytes(), place)
        for name, array in (("image", image), ("trimap", trimap))
    ]
    wrongs = draw(st.integers(0, most_wrongs))
    for _ in range(wrongs):
        if tensors:
            at = draw(st.integers(0, len(tensors) - 1))
            tensors[at : at + 1] = damaged(draw, tensors[at])
    is_sound = wrongs == 0 and shape[2] <= 999
    return Inputs(tensors, np.maximum(image[..., :1], trimap) if is_sound else None)


WRONGS = ["name", "type", "dimension", "rank", "data", "place", "parameters", "none", "twice"]


def damaged(draw: st.DrawFn, tensor: Tensor) -> list[Tensor]:
    """Return what takes the tensor's place: with something wrong, twice, or nothing."""
    kind = draw(st.sampled_from(WRONGS))
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
    if kind == "place":
        return [replace(tensor, place=draw(st.sampled_from(["", "raw_input_contents", *TYPED])))]
    if kind == "parameters":
        return [replace(tensor, parameters=draw(OF_INPUTS))]
    return [] if kind == "none" else [tensor, tensor]


@pytest.fixture(scope="module")
def server(tiny_repository: Path) -> Iterator[Server]:
    """A server of these tests alone, which they may break."""
    with launch(tiny_repository) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def ask(channel: grpc.Channel) -> Callable[[bytes], ModelInferResponse]:
    """Send bytes as the message of a gRPC request."""
    infer = channel.unary_unary(INFER, response_deserializer=ModelInferResponse.FromString)
    return lambda message: infer(message, timeout=PATIENCE)


@pytest.fixture(scope="module")
def lives(server: Server, ask: Callable[[bytes], ModelInferResponse]) -> Callable[[], None]:
    """Check that the server answers a good request, with the process that it began with."""

    def processes() -> list[tuple[int, str]]:
        return [(p.pid, p.status()) for p in psutil.Process(server.process.pid).children()]

    at_first = [pid for pid, _ in processes()]
    pixels = [Tensor("image", "UINT8", [1, 1, 1, 3], b"abc")]
    good = message_of([*pixels, Tensor("trimap", "UINT8", [1, 1, 1, 1], b"\x7f")])

    def check() -> None:
        assert ask(good).raw_output_contents == [b"\x7f"]
        assert [pid for pid, status in processes() if status != psutil.STATUS_ZOMBIE] == at_first

    return check


def message_of(
    tensors: list[Tensor], parameters: dict | None = None, outputs: list | None = None
) -> bytes:
    """Return a gRPC request's message."""
    request = ModelInferRequest(model_name="dim")
    put(parameters or {}, request)
    for tensor in tensors:
        asked = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        put(tensor.parameters, asked)
        if tensor.place == "raw_input_contents":
            request.raw_input_contents.append(tensor.data)
        elif tensor.place:
            values = map(TYPED[tensor.place], tensor.data)
            getattr(asked.contents, tensor.place).extend(values)
    for name, more in outputs or []:
        put(more, request.outputs.add(name=name))
    return request.SerializeToString()


def put(parameters: dict, message: ProtobufMessage) -> None:
    for name, value in parameters.items():
        kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
        kind = "uint64_param" if value == 2**64 - 1 else kinds[type(value)]
        setattr(message.parameters[name], kind, value)


SCRATCHES = st.lists(st.tuples(st.integers(0, 9999), st.binary(max_size=4)), max_size=2)
"""Bytes to be replaced by others, and where."""


def scratched(message: bytes, scratches: list[tuple[int, bytes]]) -> bytes:
    for at, value in scratches:
        at %= max(len(message), 1)
        message = message[:at] + value + message[at + len(value) :]
    return message


@st.composite
def messages(draw: st.DrawFn) -> Message:
    if draw(st.integers(0, 3)) == 0:  # or hardly any would get an alpha
        sent = draw(inputs(most_wrongs=0))
        return Message(message_of(sent.tensors), False, sent.alpha)
    sent, more, outputs = draw(inputs()), draw(OF_REQUESTS), draw(OUTPUTS)
    scratches = draw(SCRATCHES)
    is_sound = not more and not scratches and outputs in ([], [("alpha", {})])
    data = scratched(message_of(sent.tensors, more, outputs), scratches)
    return Message(data, bool(scratches), sent.alpha if is_sound else None)


def check(answer: ModelInferResponse, alpha: np.ndarray) -> None:
    assert answer.outputs[0].shape == list(alpha.shape)
    assert answer.raw_output_contents == [alpha.tobytes()]


@given(sent=messages())
def test_grpc(
    ask: Callable[[bytes], ModelInferResponse], lives: Callable[[], None], sent: Message
) -> None:
    try:
        answer = ask(sent.data)
    except grpc.RpcError as error:
        assert sent.alpha is None and error.code() != grpc.StatusCode.DEADLINE_EXCEEDED, error
    else:
        if sent.alpha is not None:
            check(answer, sent.alpha)
    lives()


@given(sent=st.lists(messages(), min_size=1, max_size=3))
def test_grpc_stream(channel: grpc.Channel, lives: Callable[[], None], sent: list[Message]) -> None:
    """One answer for each message in turn; the stream ends where gRPC cannot read one."""
    infer = channel.stream_stream(STREAM, response_deserializer=ModelStreamInferResponse.FromString)
    answers = []
    try:
        for answer in infer(iter([message.data for message in sent]), timeout=PATIENCE):
            answers.append(answer)
    except grpc.RpcError as error:
        assert error.code() != grpc.StatusCode.DEADLINE_EXCEEDED, error
    else:
        assert len(answers) == len(sent) or any(message.is_scratched for message in sent)
    for message, answer in zip(sent, answers, strict=False):
        if message.alpha is not None:
            check(answer.infer_response, message.alpha)
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
