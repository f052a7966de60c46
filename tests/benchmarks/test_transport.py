"""The way of the pixels is measured with a real server, over gRPC and through shared memory."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main
from benchmarks.transport import GRPC, SHARED
from server.launcher import Server


def test_both_ways_are_measured(server: Server, tmp_path: Path) -> None:
    assert main(["transport", "--quick", "--url", server.grpc_url, "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "transport.json").read_text())
    assert record["samples_ms"]["64x96"].keys() == {GRPC, SHARED}
    assert min(record["network_ms"]) > 0
    assert len((tmp_path / "transport.md").read_text().splitlines()) == 5
    assert not list(Path("/dev/shm").glob(f"dim-{os.getpid()}-*"))
