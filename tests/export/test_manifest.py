"""Does a TensorRT engine fit this machine? Asked of TensorRT's version and nvidia-smi's answer."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from export.errors import ExportError
from export.manifest import check, read_manifest, write_entry
from matting.files import sha256

REBUILD = "rebuild it: python -m export WEIGHTS --target tensorrt --precision fp16"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """An engine for an H200 by TensorRT 10.13.3, as far as its manifest goes."""
    path = tmp_path / "model.plan"
    path.write_bytes(b"engine")
    entry = {
        "target": "tensorrt",
        "precision": "fp16",
        "weights": "0" * 64,
        "files": {path.name: sha256(path)},
        "engine": {
            "version": "10.13.3",
            "gpu": {"name": "NVIDIA H200", "compute_capability": "9.0", "driver": "570.1"},
        },
    }
    write_entry(tmp_path, path.name, entry)
    return path


@pytest.fixture
def machine(nvidia_smi: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give this machine a TensorRT and a GPU."""

    def install(version: str, name: str, capability: str) -> None:
        tensorrt = ModuleType("tensorrt")
        tensorrt.__version__ = version
        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
        nvidia_smi(name, capability)

    return install


@pytest.mark.parametrize(
    ("here", "faults"),
    [
        (("10.13.3", "NVIDIA H200", "9.0"), []),
        (("10.9.0", "NVIDIA H200", "9.0"), ["was built by TensorRT 10.13.3, here is 10.9.0"]),
        (
            ("10.13.3", "NVIDIA L4", "8.9"),
            ["was built for NVIDIA H200 (9.0), here is NVIDIA L4 (8.9)"],
        ),
        (
            ("10.13.3", "NVIDIA H200", "9.1"),
            ["was built for NVIDIA H200 (9.0), here is NVIDIA H200 (9.1)"],
        ),
        (
            ("11.0.0", "NVIDIA L4", "8.9"),
            [
                "was built by TensorRT 10.13.3, here is 11.0.0",
                "was built for NVIDIA H200 (9.0), here is NVIDIA L4 (8.9)",
            ],
        ),
    ],
)
def test_version_and_gpu_must_be_the_engines(
    here: tuple[str, str, str], faults: list[str], plan: Path, machine: Callable[..., None]
) -> None:
    machine(*here)
    assert check(plan.parent) == [f"{plan.name} {fault}: {REBUILD}" for fault in faults]


@pytest.mark.parametrize("content", [b"engin", b"engine of another", b""])
def test_a_damaged_engine_is_named(
    content: bytes, plan: Path, machine: Callable[..., None]
) -> None:
    machine("10.13.3", "NVIDIA H200", "9.0")
    plan.write_bytes(content)
    assert check(plan.parent) == [f"{plan.name} is not the file that was exported: {REBUILD}"]


@pytest.mark.parametrize("value", [[], 1, None, {"model.plan": 1}, {"model.plan": {"files": []}}])
def test_what_is_no_manifest_is_damaged(value: object, plan: Path) -> None:
    (plan.parent / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(ExportError, match=r"manifest\.json is damaged: export the model again"):
        read_manifest(plan.parent)


@pytest.mark.parametrize("key", ["target", "precision", "files", "engine"])
def test_an_entry_that_lacks_something_is_damaged(key: str, plan: Path) -> None:
    entry = read_manifest(plan.parent)[plan.name]
    del entry[key]
    (plan.parent / "manifest.json").write_text(json.dumps({plan.name: entry}))
    damaged = f"{plan.parent}/manifest.json is damaged: export the model again"
    assert check(plan.parent) == [damaged]


@pytest.mark.parametrize("vnni", [True, False])
def test_a_model_in_int8_asks_for_vnni(
    vnni: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.manifest.has_vnni", lambda: vnni)
    for precision in ("fp32", "int8"):
        entry = {"target": "cpu", "precision": precision, "weights": "0" * 64, "files": {}}
        write_entry(tmp_path, f"{precision}.onnx", entry)
    faults = check(tmp_path)
    assert [fault.split(": ")[0] for fault in faults] == [
        "int8.onnx is in int8, and this processor has no VNNI"
    ] * (not vnni)


def test_entries_set_at_one_moment_are_all_there(tmp_path: Path) -> None:
    names = [f"{number}.plan" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: write_entry(tmp_path, name, {"target": name}), names))
    assert sorted(read_manifest(tmp_path)) == names


def test_other_engines_entries_stay(plan: Path) -> None:
    write_entry(plan.parent, "model.onnx", {"target": "openvino"})
    text = (plan.parent / "manifest.json").read_text()
    assert '"model.plan"' in text and '"model.onnx"' in text
    assert sorted(path.name for path in plan.parent.iterdir()) == ["manifest.json", "model.plan"]
