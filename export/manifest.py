"""The record beside what is served: what it was made from, with what, and how equal it is.

A TensorRT plan runs on one TensorRT version and one kind of GPU only, and nothing in it says which
in a way that can be read without them. `manifest.json` holds an entry per artifact of a version
folder (`model.onnx`, `model.plan`, `model.rtx`); `check` compares it with folder and machine.
"""

import importlib
import importlib.metadata
import json
import platform
from contextlib import suppress
from pathlib import Path

from export.engine import MODULES, find_gpu
from export.errors import ExportError
from export.processor import has_vnni
from matting.files import locked, sha256, write_whole

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
"""What every exported model.onnx points into, beside it."""

MNN_MODEL = "model.mnn"
"""What `export.mnn` makes of a model.onnx, beside it."""

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "mnn", "polygraphy", "numpy")


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def describe(onnx: Path, target: str, precision: str) -> dict[str, object]:
    """Return how an artifact's entry begins: what it is made from, and with what."""
    return {
        "target": target,
        "precision": precision,
        "weights": sha256(onnx.with_name(WEIGHTS)),
        "onnx": sha256(onnx),
        "tools": {"python": platform.python_version(), **installed_versions(TOOLS)},
    }


def write_entry(folder: Path, artifact: str, entry: dict[str, object]) -> None:
    """Set an artifact's entry in a folder's manifest, whole or not at all; others' stay.

    Those that another process sets at this moment, too.
    """
    with locked(folder):
        try:
            entries = read_manifest(folder)
        except ExportError:  # damaged: the new one heals it
            entries = {}
        text = json.dumps({**entries, artifact: entry}, indent=2) + "\n"
        write_whole(folder / MANIFEST, text.encode())


def read_manifest(folder: Path) -> dict[str, dict]:
    """Return the entries of a version folder's manifest by artifact; empty if there is none.

    Raises
    ------
    ExportError
        It is damaged.
    """
    path = folder / MANIFEST
    try:
        entries = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise damaged(folder) from error
    if not isinstance(entries, dict) or not all(map(is_entry, entries.values())):
        raise damaged(folder)
    return entries


def is_entry(value: object) -> bool:
    """Say if a value of a manifest can be an artifact's entry; `check` asks for more of it."""
    return isinstance(value, dict) and isinstance(value.get("files", {}), dict)


def damaged(folder: Path) -> ExportError:
    """Return the error for a folder whose manifest is damaged."""
    return ExportError(f"{folder / MANIFEST} is damaged: export the model again")


def versions(model: Path) -> list[Path]:
    """Return a model's version folders, such as `model_repository/dim/1`, the newest last."""
    folders = [path for path in model.glob("[1-9]*") if path.name.isdecimal() and path.is_dir()]
    return sorted(folders, key=lambda folder: int(folder.name))


def newest_version(model: Path) -> Path:
    """Return the version folder that Triton serves, or that of version 1 if there is none."""
    return [model / "1", *versions(model)][-1]


def check(folder: Path) -> list[str]:
    """Say what is wrong with a version folder, such as `model_repository/dim/1`.

    Returns
    -------
    list of str
        One line per fault, each with what to rebuild; empty if all is as the manifest says.
    """
    try:
        entries = read_manifest(folder)
    except ExportError as error:
        return [str(error)]
    if not entries:
        return [f"{folder / MANIFEST} is missing: export the model again"]
    try:
        faults = [
            fault
            for artifact, entry in entries.items()
            for fault in faults_of(folder, artifact, entry)
        ]
    except (KeyError, TypeError):
        return [str(damaged(folder))]
    first, *others = map(origins, entries.values())
    if any(first.isdisjoint(other) for other in others):
        names = ", ".join(entries)
        faults.append(f"{names} were made from different weights: export all of them again")
    return faults


def faults_of(folder: Path, artifact: str, entry: dict) -> list[str]:
    """Say what is wrong with an artifact; `KeyError` or `TypeError` where its entry is damaged."""
    faults = []
    rebuild = (
        f"rebuild it: python -m export WEIGHTS --target {entry['target']} "
        f"--precision {entry['precision']}"
    )
    for name, expected in entry["files"].items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing: {rebuild}")
        elif sha256(path) != expected:
            faults.append(f"{name} is not the file that was exported: {rebuild}")
    if entry["target"] == "tensorrt":
        faults += [f"{artifact} {fault}: {rebuild}" for fault in misfits(entry["engine"])]
    if entry["precision"] == "int8" and not has_vnni():
        faults.append(
            f"{artifact} is in int8, and this processor has no VNNI: "
            "export it again without --precision int8"
        )
    return faults


def origins(entry: dict) -> set[str]:
    """Return the hashes of an entry's checkpoint and of the weights that its graph was given.

    Those of a graph in FP16 are rounded, and the checkpoint may be what an export has stored.
    """
    return {entry[name] for name in ("checkpoint", "weights") if name in entry}


def misfits(engine: dict) -> list[str]:
    """Say in words what keeps a TensorRT plan from running on this machine."""
    try:
        version = importlib.import_module(MODULES["tensorrt"]).__version__
        gpu = find_gpu()
    except ImportError:
        return [f"was built by TensorRT {engine['version']}, and there is none here"]
    except ExportError:
        return [f"was built for {engine['gpu']['name']}, and there is no GPU here"]
    faults = []
    if version != engine["version"]:
        faults.append(f"was built by TensorRT {engine['version']}, here is {version}")
    built_for = (engine["gpu"]["name"], engine["gpu"]["compute_capability"])
    here = (gpu.name, gpu.compute_capability)
    if here != built_for:
        faults.append("was built for {} ({}), here is {} ({})".format(*built_for, *here))
    return faults
