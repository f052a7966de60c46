"""From a checkpoint to an artifact that is proven equal, and with it into a model repository."""

import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.engine import CAPABILITY, Profile, build_engine, check_machine, engine_matte
from export.errors import ExportError
from export.graph import build_graph, save_graph, store_weights_outside
from export.manifest import MNN_MODEL, WEIGHTS, describe
from export.mnn import write_mnn
from export.overflow import largest_magnitudes, overflows
from export.parity import (
    PICTURES,
    Parity,
    Picture,
    alpha_alone,
    alphas_in_batches,
    compare,
    matte_with,
    proven,
    read_pictures,
    with_mirror_images,
)
from export.processor import has_vnni
from export.quantize import INT8, Ranges, input_ranges, quantize
from export.repository import (
    CONFIG,
    FOR_TENSORRT,
    MODEL,
    check_place,
    put_in_place,
    read_config,
    with_parameters,
    with_profile,
)
from export.runtime import mnn_matte, onnx_matte, openvino_precision
from matting.files import sha256
from train.checkpoint import load_checkpoint, read_state, save_checkpoint
from train.network import DeepImageMatting

CPU = "cpu"
"""The target that runs each precision by what is fastest at it, see `model.py`."""

ARTIFACTS = {
    CPU: "model.onnx",
    "openvino": "model.onnx",
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt-rtx": "model.rtx",
}
TARGETS = tuple(ARTIFACTS)
NOT_RUN = "not run: engines for tensorrt-rtx never are, with or without a GPU"
PARITY_BATCH = 3
"""Pictures in one batch where parity is proven: others than `export.graph` traces."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how equal it is (None for "tensorrt-rtx", which is not run).

    `in_bf16` is the same of a graph that OpenVINO computes in bf16, or why it may not;
    `in_winograd` of what MNN makes of it.
    """

    artifact: Path
    parity: Parity | None
    in_bf16: Parity | str | None = None
    in_winograd: Parity | str | None = None


def export(
    weights: Path,
    repository: Path,
    target: str = CPU,
    precision: str = "fp32",
    *,
    pictures: Path = PICTURES,
    profile: Profile | None = None,
    capability: str = CAPABILITY,
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
        What the network computes in. "int8", for "cpu" and "openvino", rounds decoder and refiner.
    pictures : Path
        Data set, see `train.layouts`, on whose photographs parity is proven and the ranges are
        measured that eight bits are spread over.
    profile, capability, timing_cache
        See `export.engine.build_engine`.

    Raises
    ------
    ExportError
        TensorRT, a GPU or, for INT8, VNNI is missing, a tool refused the graph, or the result is
        not equal to the network. The repository is as it was, and is not made if there was none.
    train.checkpoint.CheckpointError
        The checkpoint cannot be read.
    train.layouts.DataError, matting.images.ImageError
        The pictures are not complete, or one cannot be read.
    OSError
        The repository or the timing cache cannot be written to.
    """
    if target.startswith("tensorrt"):
        check_machine(target, capability)  # before minutes of work, not after
    if precision == INT8:
        check_int8(target)
    profile = profile or Profile()
    model = repository / MODEL
    check_place(model)
    configs = {}
    if target == "tensorrt":
        configs[FOR_TENSORRT] = with_profile(read_config(model, FOR_TENSORRT), profile)
    network = load_checkpoint(weights)
    known = with_mirror_images(list(read_pictures(pictures)))
    if target == "tensorrt":
        for picture in known:
            profile.check(picture.name, picture.trimap.shape)
    expected, largest, ranges = observe(network, known, precision)
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        build = Path(scratch)
        onnx = write_onnx(network, weights, floats_of(precision), build, ranges)
        entry = describe(onnx, target, precision)
        entry["checkpoint"] = sha256(weights)
        entry["largest magnitude"] = largest
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
        batch_size = min(PARITY_BATCH, profile.largest[0]) if target == "tensorrt" else PARITY_BATCH
        parity = prove(expected, artifact, target, precision, known, batch_size)
        entry["parity"] = parity.summary() if parity else NOT_RUN
        files = [artifact.name] if artifact != onnx else [onnx.name, WEIGHTS]
        entry["files"] = {name: sha256(build / name) for name in files}
        in_bf16 = in_winograd = None
        if target in (CPU, "openvino") and precision == "fp32":
            in_bf16, in_winograd = prove_faster_ways(expected, onnx, target, known, entry)
        if artifact == onnx:
            computed_in = "auto" if isinstance(in_bf16, Parity) else "fp32"
            configs[CONFIG] = with_parameters(
                read_config(model, CONFIG),
                engine=target,
                precision=INT8 if precision == INT8 else computed_in,
            )
        put_in_place(build, model, artifact.name, entry, configs)
    return Exported(model / "1" / artifact.name, parity, in_bf16, in_winograd)


def floats_of(precision: str) -> str:
    """Return the precision of a graph's floats: eight bits are put into a graph in FP32."""
    return "fp32" if precision == INT8 else precision


def observe(
    network: DeepImageMatting, pictures: list[Picture], precision: str
) -> tuple[list[np.ndarray], float, Ranges | None]:
    """Return the network's alphas, its largest magnitude and, for INT8, its layers' input ranges.

    Raises
    ------
    ExportError
        The precision cannot hold its numbers.
    """
    watched = input_ranges(network) if precision == INT8 else nullcontext()
    with largest_magnitudes(network) as largest, watched as ranges:
        expected = expected_alphas(network, pictures)
    if complaints := overflows(largest, floats_of(precision)):
        raise ExportError("not computable: " + "; ".join(complaints))
    return expected, max(largest.values()), ranges


def verdict(proof: Parity | str) -> dict[str, object] | str:
    """Return, for a manifest, how equal something is, or why it is not."""
    return proof if isinstance(proof, str) else proof.summary()


def check_int8(target: str) -> None:
    """Refuse INT8 where it cannot be proven: only OpenVINO on a processor with VNNI will do.

    Raises
    ------
    ExportError
        The target or the processor is another one.
    """
    if target not in (CPU, "openvino"):
        raise ExportError(f"--precision int8 is for --target cpu or openvino, not {target}")
    if not has_vnni():
        raise ExportError("int8 needs a processor with VNNI (avx512_vnni or avx_vnni); use fp32")


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
    store_weights_outside(graph, store_weights(network, weights, precision, folder))
    save_graph(graph, folder / "model.onnx")
    return folder / "model.onnx"


def store_weights(network: DeepImageMatting, weights: Path, precision: str, folder: Path) -> Path:
    """Write a network's checkpoint as safetensors; return its path.

    FP16 for a graph in FP16, so that it has constants for weights and no casts, which not every
    TensorRT takes before a convolution. Else FP16 as FP16 and all others as FP32: BF16 fits into
    that alone, and FP64 is more than the network computes in.
    """
    stored = folder / WEIGHTS
    dtypes = {value.dtype for value in read_state(weights).values()}
    half = precision == "fp16" or dtypes == {torch.float16}
    dtype = torch.float16 if half else torch.float32
    if weights.suffix == ".safetensors" and dtypes <= {torch.float16, dtype}:
        shutil.copyfile(weights, stored)
    else:
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
    batch_size: int = PARITY_BATCH,
) -> Parity | None:
    """Compare an artifact with what the network answers; None for "tensorrt-rtx", which is not run.

    Pictures of one size that follow each other go in one batch, `batch_size` of them at most.

    Raises
    ------
    ExportError
        It is not equal within the precision's tolerance.
    """
    if target == "tensorrt-rtx":
        return None
    if target == "tensorrt":
        exported = engine_matte(artifact.read_bytes(), target)
    elif artifact.name == MNN_MODEL:
        exported = mnn_matte(artifact)
    else:
        # A graph in FP16 says so itself.
        exported = onnx_matte(artifact, target, "fp32" if precision == "fp16" else precision)
    found = alphas_in_batches(exported, pictures, batch_size)
    comparisons = [compare(*of) for of in zip(pictures, expected, found, strict=True)]
    return proven(comparisons, precision)


def prove_faster_ways(
    expected: list[np.ndarray], onnx: Path, target: str, pictures: list[Picture], entry: dict
) -> tuple[Parity | str, Parity | str | None]:
    """Compare an FP32 graph computed in bf16 and, for "cpu", by Winograd; add both to its entry.

    Returns what there is to say of each.
    """
    in_bf16, in_winograd = prove_in_bf16(expected, onnx, pictures), None
    entry["bf16"] = verdict(in_bf16)
    if target == CPU:
        in_winograd = prove_in_winograd(expected, onnx, pictures)
        entry["winograd"] = verdict(in_winograd)
        if isinstance(in_winograd, Parity):
            entry["files"][MNN_MODEL] = sha256(onnx.with_name(MNN_MODEL))
    return in_bf16, in_winograd


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


def prove_in_winograd(
    expected: list[np.ndarray], onnx: Path, pictures: list[Picture]
) -> Parity | str:
    """Convert an FP32 graph for MNN, beside it, and compare that, or say why it is not served."""
    try:
        write_mnn(onnx, onnx.with_name(MNN_MODEL))
        return prove(expected, onnx.with_name(MNN_MODEL), CPU, "winograd", pictures)
    except ExportError as error:
        return str(error)
