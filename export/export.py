"""From a checkpoint to a model repository: build, prove equal, put in place."""

import errno
import os
import re
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.engine import Profile, as_text, build_engine, check_machine, engine_matte
from export.errors import ExportError
from export.files import write_whole
from export.graph import build_graph, save_graph, store_weights_outside
from export.manifest import WEIGHTS, describe, sha256, write_entry
from export.overflow import largest_magnitudes, overflows
from export.parity import (
    PAIRS,
    Parity,
    Picture,
    alpha_alone,
    alphas_in_batches,
    compare,
    judge,
    matte_with,
    read_pictures,
    with_mirror_images,
)
from export.quantize import INT8, Ranges, has_vnni, input_ranges, quantize
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
MODEL, CONFIG, FOR_TENSORRT = "dim", "config.pbtxt", "configs/tensorrt.pbtxt"
TEMPLATE = Path(__file__).parents[1] / "model_repository" / MODEL
"""The project's own model, of which every repository gets a copy of `TEMPLATES`."""

TEMPLATES = (CONFIG, "configs/*.pbtxt", "1/model.py")

COMPANY = 3
"""Pictures in one batch where parity is proven: others than `export.graph` traces."""


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

    A new model comes into its place at once. In a model that is there files are replaced one by
    one: what is left by a process that was killed meanwhile is not what its manifest says, and
    model.py and `export.manifest.check` refuse it.

    Parameters
    ----------
    weights : Path
        A checkpoint that `train.checkpoint.load_checkpoint` reads.
    repository : Path
        Model repository; `dim` in it is made, or the target's artifact in it replaced.
    target : str
        One of `TARGETS`.
    precision : "fp32", "fp16" or "int8"
        What the network computes in. "int8", for "openvino" alone, rounds decoder and refiner.
    pictures : Path
        Folder with `image/`, `trimap/`, `alpha/` to prove parity on, and to measure the ranges that
        eight bits are spread over.
    profile, capability, timing_cache
        See `export.engine.build_engine`.

    Raises
    ------
    ExportError
        TensorRT, a GPU or, for INT8, VNNI is missing, a tool refused the graph, or the result is
        not equal to the network. The repository is as it was, and is not made if there was none.
    train.checkpoint.CheckpointError
        The checkpoint cannot be read.
    """
    if target.startswith("tensorrt"):
        check_machine(target, capability)  # before minutes of work, not after
    in_int8 = precision == INT8
    if in_int8:
        check_int8(target)
    floats = "fp32" if in_int8 else precision
    profile = profile or Profile()
    model = repository / MODEL
    check_place(model)
    configs = {}
    if target == "tensorrt":
        configs[FOR_TENSORRT] = with_profile(read_config(model, FOR_TENSORRT), profile)
    network = load_checkpoint(weights)
    known = with_mirror_images(list(read_pictures(pictures)))
    watched = input_ranges(network) if in_int8 else nullcontext()
    with largest_magnitudes(network) as largest, watched as ranges:
        expected = expected_alphas(network, known)
    if complaints := overflows(largest, floats):
        raise ExportError("not computable: " + "; ".join(complaints))
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        build = Path(scratch)
        onnx = write_onnx(network, weights, floats, build, ranges)
        entry = describe(onnx, target, precision)
        entry["checkpoint"] = sha256(weights)
        entry["largest magnitude"] = max(largest.values())
        artifact = build / ARTIFACTS[target]
        if target.startswith("tensorrt"):
            engine, entry["engine"] = build_engine(
                onnx,
                target,
                precision,
                profile,
                capability=capability,
                timing_cache=timing_cache,
            )
            artifact.write_bytes(engine)
        company = min(COMPANY, profile.largest[0]) if target == "tensorrt" else COMPANY
        parity = prove(expected, artifact, target, precision, known, company)
        entry["parity"] = parity.summary() if parity else "not run: needs the GPU it was built for"
        files = [artifact.name] if artifact != onnx else [onnx.name, WEIGHTS]
        entry["files"] = {name: sha256(build / name) for name in files}
        in_bf16 = None
        if target == "openvino" and precision == "fp32":
            in_bf16 = prove_in_bf16(expected, onnx, known)
            entry["bf16"] = in_bf16 if isinstance(in_bf16, str) else in_bf16.summary()
        computed_in = "auto" if isinstance(in_bf16, Parity) else "fp32"
        run_by = (target, INT8 if in_int8 else computed_in)
        if artifact == onnx:
            configs[CONFIG] = with_settings(read_config(model, CONFIG), *run_by)
        put_in_place(build, model, artifact.name, entry, configs)
    return Exported(model / "1" / artifact.name, parity, in_bf16)


def check_int8(target: str) -> None:
    """Refuse INT8 where it cannot be proven: elsewhere than in OpenVINO on a processor with VNNI.

    Raises
    ------
    ExportError
        It is elsewhere.
    """
    if target != "openvino":
        raise ExportError(f"--precision int8 is for --target openvino, not {target}")
    if not has_vnni():
        raise ExportError("int8 takes a processor with VNNI (avx512_vnni or avx_vnni); use fp32")


def check_place(model: Path) -> None:
    """Refuse a place that cannot be written to, before minutes of work.

    Raises
    ------
    FileExistsError
        The model's folder, or what it should lie in, is a file.
    PermissionError
        It may not be written to.
    """
    for folder in (model.absolute(), model.absolute() / "1"):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def write_onnx(
    network: DeepImageMatting,
    weights: Path,
    precision: str,
    folder: Path,
    ranges: Ranges | None = None,
) -> Path:
    """Write `model.onnx` and the weights that it points into; return the graph's path.

    Layers with a range have eight bits.
    """
    graph = build_graph(network, precision)
    quantize(graph, ranges or {})
    store_weights_outside(graph, store_weights(network, weights, folder))
    save_graph(graph, folder / "model.onnx")
    return folder / "model.onnx"


def store_weights(network: DeepImageMatting, weights: Path, folder: Path) -> Path:
    """Write a network's checkpoint as safetensors, FP16 as FP16, else as FP32; return its path.

    BF16 fits into FP32 alone, and FP64 is more than the network computes in.
    """
    stored = folder / WEIGHTS
    dtypes = {value.dtype for value in read_state(weights).values()}
    if weights.suffix == ".safetensors" and dtypes <= {torch.float16, torch.float32}:
        shutil.copyfile(weights, stored)
    else:
        dtype = torch.float16 if dtypes == {torch.float16} else torch.float32
        save_checkpoint(network, stored, {"source": weights.name}, dtype)
    return stored


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
    company: int = COMPANY,
) -> Parity | None:
    """Compare an artifact with what the network answers; None if it cannot run on this machine.

    Pictures of one size that follow each other go in one batch, `company` of them at most.

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
        # A graph in FP16 says so itself.
        exported = onnx_matte(artifact, target, "fp32" if precision == "fp16" else precision)
    found = alphas_in_batches(exported, pictures, company)
    comparisons = [compare(*of) for of in zip(pictures, expected, found, strict=True)]
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


def read_config(model: Path, name: str) -> str:
    """Return the text of a model's configuration; the template's where the model has none."""
    own = model / name
    return (own if own.is_file() else TEMPLATE / name).read_text()


def with_settings(config: str, engine: str, precision: str) -> str:
    """Return a config.pbtxt that says by what model.py runs the graph and in which precision.

    "auto" is bf16 where the processor computes in it, "int8" a graph that `quantize` has rounded.

    Raises
    ------
    ExportError
        One of the parameters is not there, or more than once.
    """
    for key, value in {"engine": engine, "precision": precision}.items():
        parameter = rf'(key:\s*"{key}"\s*value:?\s*{{\s*string_value:\s*)"[^"]*"'
        config, found = re.subn(parameter, rf'\g<1>"{value}"', config)
        if found != 1:
            raise ExportError(
                f"{CONFIG} says {found} times what parameter {key!r} is, expected once as in the "
                f'project\'s own: {{ key: "{key}" value {{ string_value: "{value}" }} }}'
            )
    return config


def with_profile(config: str, profile: Profile) -> str:
    """Return a configs/tensorrt.pbtxt whose batches and warm-up an engine of this profile takes.

    The warm-up is one picture of the size that the engine is tuned for.

    Raises
    ------
    ExportError
        The engine takes no single picture, or one of the settings is not there as often as in the
        project's own.
    """
    if profile.smallest[0] > 1:
        raise ExportError(
            f"smallest input is {as_text(profile.smallest)}: its N has to be 1, since Triton also "
            "sends single pictures"
        )
    _, height, width = profile.best
    for setting, times, pattern, value in (
        ("max_batch_size", 1, r"(?m)^max_batch_size:.*$", f"max_batch_size: {profile.largest[0]}"),
        ("the warm-up's name", 1, r'"\d+x\d+"', f'"{height}x{width}"'),
        ("the warm-up's size", 2, r"\[\s*\d+\s*,\s*\d+\s*,", f"[ {height}, {width},"),
    ):
        config, found = re.subn(pattern, value, config)
        if found != times:
            raise ExportError(
                f"{FOR_TENSORRT} says {found} times what {setting} is, expected {times} as in the "
                "project's own"
            )
    return config


def fill(model: Path) -> None:
    """Copy what a model lacks of `TEMPLATES` into its folder."""
    for source in (path for pattern in TEMPLATES for path in TEMPLATE.glob(pattern)):
        place = model / source.relative_to(TEMPLATE)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


def copy_all(places: dict[Path, Path]) -> None:
    """Copy files, each to its place, and replace none before all are copied.

    Their places may lie in another file system, where a file cannot be moved at once.
    """
    partials = {place: place.with_name(f".{place.name}.partial") for place in places.values()}
    try:
        for source, place in places.items():
            shutil.copyfile(source, partials[place])
        for place, partial in partials.items():
            partial.replace(place)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def put_in_place(
    build: Path, model: Path, artifact: str, entry: dict, configs: dict[str, str]
) -> None:
    """Copy the built files into the model's folder, and write configurations that fit them.

    A new folder is made whole before it gets its name: beside it, since the repository may be a
    file system of its own. Triton takes every folder there for a model, so it is there for the
    copying alone. In an old one the manifest comes last: until then it names other files than there
    are.
    """
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=model.parent, prefix=".export-") as beside:
            whole = Path(beside) / MODEL
            whole.mkdir()
            put_in_place(build, whole, artifact, entry, configs)
            whole.replace(model)
        return
    fill(model)
    copy_all({build / name: model / "1" / name for name in entry["files"]})
    for name, text in configs.items():
        write_whole(model / name, text.encode())
    write_entry(model / "1", artifact, entry)
