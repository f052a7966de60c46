"""From a checkpoint to a model repository: build, prove equal, put in place."""

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.engine import Profile, build_engine, check_machine, engine_matte
from export.errors import ExportError
from export.graph import build_graph, save_graph, store_weights_outside
from export.manifest import MANIFEST, read_manifest, sha256, tool_versions
from export.overflow import largest_magnitudes, overflows
from export.parity import (
    PAIRS,
    Parity,
    Picture,
    alpha_alone,
    alpha_in_company,
    compare,
    judge,
    matte_with,
    read_pictures,
)
from export.runtime import onnx_matte, openvino_precision
from train.checkpoint import load_checkpoint, read_state, save_checkpoint
from train.network import DeepImageMatting

TARGETS = ("openvino", "onnxruntime", "tensorrt", "tensorrt-rtx")
ARTIFACTS = {
    "openvino": "model.onnx",
    "onnxruntime": "model.onnx",
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
    """What an export wrote, and how equal it is (None if it cannot run on this machine).

    `in_bf16` is the same of a graph that OpenVINO computes in bf16, or why it may not.
    """

    artifact: Path
    parity: Parity | None
    in_bf16: Parity | str | None = None


def export(
    weights: Path,
    repository: Path,
    target: str = "openvino",
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
    with largest_magnitudes(network) as largest:
        expected = expected_alphas(network, known)
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
        parity = prove(expected, artifact, target, precision, known)
        entry["parity"] = parity.summary() if parity else "not run: needs the GPU it was built for"
        files = [artifact.name] if artifact != onnx else [onnx.name, WEIGHTS]
        entry["files"] = {name: sha256(build / name) for name in files}
        in_bf16 = None
        if target == "openvino" and precision == "fp32":
            in_bf16 = prove_in_bf16(expected, onnx, known)
            entry["bf16"] = in_bf16 if isinstance(in_bf16, str) else in_bf16.summary()
        put_in_place(build, repository / MODEL, artifact.name, entry)
        if artifact == onnx:
            proven = isinstance(in_bf16, Parity)
            set_engine(repository / MODEL, target, "auto" if proven else "fp32")
    return Exported(repository / MODEL / "1" / artifact.name, parity, in_bf16)


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


def expected_alphas(network: DeepImageMatting, pictures: list[Picture]) -> list[np.ndarray]:
    """Return what the network answers on pictures, each H×W uint8: the reference."""
    matte = matte_with(network)
    return [alpha_alone(matte, picture) for picture in pictures]


def prove(
    expected: list[np.ndarray],
    artifact: Path,
    target: str,
    precision: str,
    pictures: list[Picture],
) -> Parity | None:
    """Compare an artifact with what the network answers; None if it cannot run on this machine.

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
        exported = onnx_matte(artifact, target, "bf16" if precision == "bf16" else "fp32")
    comparisons = [
        compare(picture, alpha, alpha_in_company(exported, picture))
        for picture, alpha in zip(pictures, expected, strict=True)
    ]
    parity = judge(comparisons, precision)
    if parity.complaints:
        raise ExportError("not equal to the network: " + "; ".join(parity.complaints))
    return parity


def prove_in_bf16(expected: list[np.ndarray], onnx: Path, pictures: list[Picture]) -> Parity | str:
    """Compare an FP32 graph that OpenVINO computes in bf16, or say why it has to be FP32.

    It rounds eight times more coarsely than FP16, and some networks lose by it: every one has to
    show that it does not.
    """
    if openvino_precision() != "bf16":
        return "not run: this processor does not compute in bf16"
    try:
        return prove(expected, onnx, "openvino", "bf16", pictures)
    except ExportError as error:
        return str(error)


def set_engine(model: Path, engine: str, precision: str) -> None:
    """Tell model.py, in the model's config.pbtxt, by what to run the graph and in which precision.

    "auto" is bf16 where the processor computes in it.
    """
    config = model / "config.pbtxt"
    text = config.read_text()
    for key, value in {"engine": engine, "precision": precision}.items():
        parameter = rf'(key:\s*"{key}"\s*value:?\s*{{\s*string_value:\s*)"[^"]*"'
        text = re.sub(parameter, rf'\g<1>"{value}"', text)
    written = config.with_suffix(".new")
    written.write_text(text)
    written.replace(config)


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
