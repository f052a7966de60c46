"""What is not for clients is closed, over gRPC and HTTP, unless its key is given at the start."""

import json
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType

import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from server.launcher import Server, launch, restrictions

CLOSED = {
    "get_model_repository_index": (),
    "load_model": ("dim",),
    "unload_model": ("dim",),
    "register_system_shared_memory": ("region", "/region", 64),
    "get_system_shared_memory_status": (),
    "update_trace_settings": ("dim", {"trace_level": ["TENSORS"]}),
    "update_log_settings": ({"log_verbose_level": 1},),
}


@pytest.mark.parametrize("protocol", [grpc, http], ids=["gRPC", "HTTP"])
def test_closed_by_default(tiny_server: Server, protocol: ModuleType) -> None:
    url = tiny_server.grpc_url if protocol is grpc else tiny_server.http_url
    with protocol.InferenceServerClient(url) as client:
        for name, arguments in CLOSED.items():
            with pytest.raises(InferenceServerException, match="is restricted, expecting header"):
                getattr(client, name)(*arguments)
        assert client.is_server_ready()
        assert "dim" in str(client.get_inference_statistics("dim"))


def test_no_photos_over_http(tiny_server: Server) -> None:
    """What ends Triton 2.51 where inference over HTTP is open: data in JSON of such a shape."""
    huge = {"name": "image", "datatype": "UINT8", "shape": [2**62, 1, 1, 3], "data": [1, 2, 3]}
    with closing(HTTPConnection(tiny_server.http_url, timeout=60)) as connection:
        connection.request("POST", "/v2/models/dim/infer", json.dumps({"inputs": [huge]}))
        assert connection.getresponse().status == HTTPStatus.FORBIDDEN
    assert tiny_server.is_ready() and tiny_server.process.poll() is None


def test_nobody_can_guess_the_key() -> None:
    keys = [flag.rpartition(":admin=")[2] for flag in (*restrictions(), *restrictions())]
    assert len(set(keys)) == 2 * len(restrictions()) and min(map(len, keys)) >= 32


def test_flags_for_something_else_open_nothing() -> None:
    assert len(restrictions(["--log-verbose=1"])) == len(restrictions()) == 2
    (http,) = restrictions(["--grpc-restricted-protocol=trace:admin=key"])
    assert http.startswith("--http-restricted-api=inference,")


def test_a_key_of_ones_own(quick_repository: Path) -> None:
    flags = ["--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:admin=key"]
    with (
        launch(quick_repository, flags=flags) as server,
        grpc.InferenceServerClient(server.grpc_url) as client,
    ):
        with pytest.raises(InferenceServerException, match="is restricted"):
            client.get_model_repository_index()
        key = {"triton-grpc-protocol-admin": "key"}
        assert client.get_model_repository_index(headers=key).models[0].name == "dim"


def test_open_to_shared_memory_only(quick_repository: Path) -> None:
    with (
        launch(quick_repository, shm=True) as server,
        grpc.InferenceServerClient(server.grpc_url) as client,
        http.InferenceServerClient(server.http_url) as by_http,
    ):
        assert not client.get_system_shared_memory_status().regions
        with pytest.raises(InferenceServerException, match="is restricted"):
            client.get_model_repository_index()
        with pytest.raises(InferenceServerException, match="is restricted"):
            by_http.get_system_shared_memory_status()
