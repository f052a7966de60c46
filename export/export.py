"""From a checkpoint to a model repository: build, prove equal, put in place."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.engine import Profile, build_engine, check_machine, engine_matte
from export.errors import ExportError
from export.graph import build_graph, save_graph, store_weights_outside
from export.manifest import MANIFEST, read_manifest, sha256, tool_versions
from export.overflow import largest_magnitudes, overflows
from export.parity import (
    PAIRS,
    Matte,
    Parity,
    Picture,
    compare,
    judge,
    matte_with,
    read_pictures,
)
from train.checkpoint import load_checkpoint, read_state, save_checkpoint
from train.network import DeepImageMatting

TARGETS = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
ARTIFACTS = {
    "onnxruntime": "model.onnx",
    "openvino": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt-rtx": "model.rtx",
}
WEIGHTS = "weights.safetensors"
MODEL = "dim"
TEMPLATE = Path(__file__).parents[1] / "model_repository" / MODEL
"""Configurations and the Python backend's model.py, of which every repository gets a copy."""

GENERATED = (*set(ARTIFACTS.values()), WEIGHTS, MANIFEST, "__pycache__")


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how equal it is (None if it cannot run on this machine)."""

    artifact: Path
    parity: Parity | None


def export(
    weights: Path,
    repository: Path,
    target: str = "onnxruntime",
    precision: str = "fp32",
    *,
    pictures: Path = PAIRS,
    profile: Profile | None = None,
    capability: str = "8.9",
    timing_cache: Path | None = None,
) -> Exported:
    """Export a checkpoint into a Triton model repository, whole or not at all.

    Parameters
    ----------
    weights : Path
        A checkpoint that `train.checkpoint.load_checkpoint` reads.
    repository : Path
        Model repository; `dim` in it is made, or the target's artifact in it replaced.
    target : str
        One of `TARGETS`.
    precision : "fp32" or "fp16"
        What the network computes in.
    pictures : Path
        Folder with `image/`, `trimap/`, `alpha/` to prove parity on.
    profile, capability, timing_cache
        See `export.engine.build_engine`.

    Raises
    ------
    ExportError
        TensorRT or a GPU is missing, a tool refused the graph, or the result is not equal to the
        network. The repository is as it was.
    train.checkpoint.CheckpointError
        The checkpoint cannot be read.
    """
    if target.startswith("tensorrt"):
        check_machine(target, capability)  # before minutes of work, not after
    network = load_checkpoint(weights)
    known = list(read_pictures(pictures))
    largest = largest_magnitudes(network, known)
    if complaints := overflows(largest, precision):
        raise ExportError("not computable: " + "; ".join(complaints))
    repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=".export-") as scratch:
        build = Path(scratch)
        onnx = write_onnx(network, weights, precision, build)
        entry = {
            "target": target,
            "precision": precision,
            "weights": sha256(build / WEIGHTS),
            "onnx": sha256(onnx),
            "tools": tool_versions(),
            "largest magnitude": max(largest.values()),
        }
        artifact = build / ARTIFACTS[target]
        if target.startswith("tensorrt"):
            engine, entry["engine"] = build_engine(
                onnx,
                target,
                precision,
                profile or Profile(),
                capability=capability,
                timing_cache=timing_cache,
            )
            artifact.write_bytes(engine)
        parity = prove(network, artifact, target, precision, known)
        entry["parity"] = parity.summary() if parity else "not run: needs the GPU it was built for"
        files = [artifact.name] if artifact != onnx else [onnx.name, WEIGHTS]
        entry["files"] = {name: sha256(build / name) for name in files}
        put_in_place(build, repository / MODEL, artifact.name, entry)
    return Exported(repository / MODEL / "1" / artifact.name, parity)


def write_onnx(network: DeepImageMatting, weights: Path, precision: str, folder: Path) -> Path:
    """Write `model.onnx` and the weights that it points into; return the graph's path."""
    stored = folder / WEIGHTS
    if weights.suffix == ".safetensors":
        shutil.copyfile(weights, stored)
    else:
        dtype = {value.dtype for value in read_state(weights).values()}.pop()
        save_checkpoint(network, stored, {"source": weights.name}, dtype)
    graph = build_graph(network, precision)
    store_weights_outside(graph, stored)
    save_graph(graph, folder / "model.onnx")
    return folder / "model.onnx"


def onnx_matte(onnx: Path, target: str) -> Matte:
    """Return an ONNX file as the wire contract's function, run by the target's runtime."""
    if target == "openvino":
        import openvino

        # Without the hint OpenVINO computes in bf16 where the processor has it.
        compiled = openvino.compile_model(onnx, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda image, trimap: compiled({"image": image, "trimap": trimap})["alpha"]
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return lambda image, trimap: session.run(["alpha"], {"image": image, "trimap": trimap})[0]


def prove(
    network: DeepImageMatting, artifact: Path, target: str, precision: str, pictures: list[Picture]
) -> Parity | None:
    """Compare an artifact with the network on pictures; None if it cannot run on this machine.

    Raises
    ------
    ExportError
        It is not equal within the precision's tolerance.
    """
    if target == "tensorrt-rtx":
        return None
    if target == "tensorrt":
        exported = engine_matte(artifact.read_bytes(), target)
    else:
        exported = onnx_matte(artifact, target)
    reference = matte_with(network)
    parity = judge([compare(p, reference, exported) for p in pictures], precision)
    if parity.complaints:
        raise ExportError("not equal to the network: " + "; ".join(parity.complaints))
    return parity


def put_in_place(build: Path, model: Path, artifact: str, entry: dict) -> None:
    """Move the built files into the model's folder, the manifest last."""
    version = model / "1"
    if not model.exists():
        shutil.copytree(TEMPLATE, model, ignore=shutil.ignore_patterns(*GENERATED))
    try:
        entries = read_manifest(version)
    except ExportError:  # damaged: the new one heals it
        entries = {}
    entries[artifact] = entry
    for name in entry["files"]:
        (build / name).replace(version / name)
    manifest = build / MANIFEST
    manifest.write_text(json.dumps(entries, indent=2) + "\n")
    manifest.replace(version / MANIFEST)
