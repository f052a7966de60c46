"""Is every exported form of a network still that network? One table, and the worst places seen.

The rows: the PyTorch reference, ONNX in FP32 and FP16, a TensorRT engine, and the answers of a
Triton server over gRPC; each with the four metrics against the true alpha, how far its alpha is
from the reference's, and the verdict by export/tolerance.py. Besides the table, parity.csv has
every picture, and worst.png shows the worst places. Exit code 1 if any row is not equal.
"""

import argparse
import csv
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.measure import Samples
from benchmarks.peers import SkippedError, openvino_bf16_matte, require_gpu, tensorrt_matte
from benchmarks.record import write_files
from benchmarks.service import check_server, serving, what_serves
from benchmarks.tables import Section
from benchmarks.worst import draw_worst
from client.connection import Matte
from export.errors import ExportError
from export.export import CPU, expected_alphas, prove_faster_ways, write_onnx
from export.manifest import MNN_MODEL, WEIGHTS, describe, write_entry
from export.parity import (
    Matting,
    Parity,
    Picture,
    add_pictures_argument,
    alpha_alone,
    compare,
    judge,
    matte_with,
    read_pictures,
)
from export.repository import CONFIG, MODEL, fill, with_parameters
from export.runtime import mnn_matte, onnx_matte
from export.tolerance import TOLERANCES
from matting.files import sha256
from matting.images import encode_image
from train.checkpoint import load_checkpoint
from train.network import DeepImageMatting

WORST = "worst.png"
IN_BF16 = "ONNX FP32 in bf16, OpenVINO"
IN_WINOGRAD = "FP32 by Winograd, MNN"
QUICK = "one picture only"
EXAMPLES = """examples:
  python -m benchmarks parity weights.safetensors
  python -m benchmarks parity dim_stage3.pth --data my_pictures -o out/parity
  python -m benchmarks parity weights.safetensors --url 127.0.0.1:8001 --precision fp16
"""


@dataclass(frozen=True)
class Row:
    """One exported form: its alphas (H×W uint8 a picture) held against the reference's."""

    name: str
    precision: str
    parity: Parity | None = None
    skipped: str | None = None
    failure: str | None = None
    alphas: list[np.ndarray] = field(default_factory=list, repr=False)

    @property
    def verdict(self) -> str:
        """What there is to say of it, in words."""
        if self.failure:
            return f"failed: {self.failure}"
        if self.parity is None:
            return f"not run: {self.skipped}"
        return "; ".join(self.parity.complaints) or "equal"

    @property
    def is_wrong(self) -> bool:
        """Whether it ran and is not the network."""
        return bool(self.failure or (self.parity and self.parity.complaints))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    parser.add_argument("weights", type=Path, help="checkpoint: ours or mmediting's .pth")
    add_pictures_argument(parser)
    parser.add_argument(
        "--url",
        metavar="HOST:PORT",
        help="gRPC port of a running server (default: start one with these weights)",
    )
    parser.add_argument(
        "--precision",
        choices=TOLERANCES,
        help="precision of the server, whose tolerance applies (default: what it reports)",
    )


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result, failed if any form is not equal; write parity.csv and worst.png."""
    if options.url:  # before minutes of work, not after
        check_server(options.url)
        options.precision = options.precision or what_serves(options.url).precision
    pictures = list(read_pictures(options.data))[: 1 if options.quick else None]
    network = load_checkpoint(options.weights)
    reference = matte_all(matte_with(network), pictures, "reference")
    with ExitStack() as stack:
        largest = np.max([picture.trimap.shape for picture in pictures], axis=0).tolist()
        forms = exported_forms(network, (1, *largest), options, stack)
        rows = [
            make_row(name, precision, start, pictures, reference)
            for name, (precision, start) in forms.items()
        ]
    alphas = {row.name: row.alphas for row in rows if row.parity}
    worst = encode_image(WORST, draw_worst(pictures, reference, alphas))
    write_files(options.output, {"parity.csv": to_csv(rows), WORST: worst})
    return {
        "tolerances": {name: asdict(tolerance) for name, tolerance in TOLERANCES.items()},
        "rows": [
            {"name": row.name, "precision": row.precision, "verdict": row.verdict}
            | (asdict(row.parity) | row.parity.summary() if row.parity else {})
            for row in rows
        ],
        # A network that is not itself so is served in FP32 by OpenVINO.
        "failed": any(row.is_wrong for row in rows if row.name not in (IN_BF16, IN_WINOGRAD)),
    }


def exported_forms(
    network: DeepImageMatting,
    largest: tuple[int, int, int],
    options: argparse.Namespace,
    stack: ExitStack,
) -> dict[str, tuple[str, Callable[[], Matting]]]:
    """Return by name each form's precision and what starts it; they live as long as the stack.

    `largest` is N, H and W of the largest input.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")))
    repository = folder / "repository"
    fp32, in_winograd = write_repository(network, options.weights, repository)
    (folder / "fp16").mkdir()
    fp16 = write_onnx(network, options.weights, "fp16", folder / "fp16")
    address = stack.enter_context(serving(repository, options.url))

    def tensorrt() -> Matting:
        require_gpu()
        return tensorrt_matte(fp16, largest)

    def by_mnn() -> Matting:
        mnn = fp32.with_name(MNN_MODEL)
        if not mnn.is_file():
            raise SkippedError(str(in_winograd))
        return mnn_matte(mnn)

    return {
        "ONNX FP32, ONNX Runtime": ("fp32", lambda: onnx_matte(fp32, "onnxruntime")),
        "ONNX FP32, OpenVINO": ("fp32", lambda: onnx_matte(fp32, "openvino")),
        IN_WINOGRAD: ("winograd", by_mnn),
        IN_BF16: ("bf16", lambda: openvino_bf16_matte(fp32)),
        "ONNX FP16, ONNX Runtime": ("fp16", lambda: onnx_matte(fp16, "onnxruntime")),
        "TensorRT FP16": ("fp16", tensorrt),
        "served over gRPC": (
            options.precision or what_serves(address, repository).precision,
            lambda: stack.enter_context(served(address)),
        ),
    }


def write_repository(
    network: DeepImageMatting, weights: Path, repository: Path
) -> tuple[Path, Parity | str]:
    """Export for CPUs as `export.export` does, but refuse nothing: the rows judge.

    Returns the graph in FP32, and what there is to say of MNN beside it.
    """
    version = repository / MODEL / "1"
    fill(version.parent)
    config = version.parent / CONFIG
    config.write_text(with_parameters(config.read_text(), engine=CPU, precision="auto"))
    onnx = write_onnx(network, weights, "fp32", version)
    entry = describe(onnx, CPU, "fp32")
    entry["files"] = {path.name: sha256(path) for path in (onnx, version / WEIGHTS)}
    known = list(read_pictures())
    expected = expected_alphas(network, known)
    _, in_winograd = prove_faster_ways(expected, onnx, CPU, known, entry)
    write_entry(version, onnx.name, entry)
    return onnx, in_winograd


@contextmanager
def served(address: str) -> Iterator[Matting]:
    """Connect to a server."""
    with Matte(address) as connection:

        def matte(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
            pairs = zip(image, trimap[..., 0], strict=True)
            alphas = [connection.alpha(*pair, tile="off") for pair in pairs]
            return np.stack(alphas)[..., np.newaxis]

        yield matte


def make_row(
    name: str,
    precision: str,
    start: Callable[[], Matting],
    pictures: list[Picture],
    reference: list[np.ndarray],
) -> Row:
    """Matte all pictures and judge them, or say why not."""
    try:
        alphas = matte_all(start(), pictures, name)
        comparisons = [compare(*of) for of in zip(pictures, reference, alphas, strict=True)]
    except SkippedError as error:
        return Row(name, precision, skipped=str(error))
    except ExportError as error:
        return Row(name, precision, failure=str(error))
    return Row(name, precision, judge(comparisons, precision), alphas=alphas)


def matte_all(matte: Matting, pictures: list[Picture], title: str) -> list[np.ndarray]:
    """Return the alpha of every picture, H×W uint8."""
    return [
        alpha_alone(matte, picture)
        for picture in tqdm(pictures, desc=title, unit="picture", leave=False, disable=None)
    ]


def render(record: dict) -> list[Section]:
    """Return a record's table: each metric with its change relative to the reference's."""
    judged = [row["reference"] for row in record["rows"] if "reference" in row]
    same = {"mean Δα": "0", "largest Δα": "0", "verdict": "the reference"}
    metrics = {name: f"{value:.4f}" for name, value in (judged or [{}])[0].items()}
    table = [{"form": "PyTorch FP32"} | metrics | same]
    for row in record["rows"]:
        cells = dict.fromkeys(table[0], "–") | {"form": row["name"], "verdict": row["verdict"]}
        if "reference" in row:
            for name, found in row["exported"].items():
                expected = row["reference"][name]
                cells[name] = f"{found:.4f} ({(found / expected - 1) if expected else 0:+.3%})"
            cells["mean Δα"] = f"{row['mean_difference']:.1e}"
            cells["largest Δα"] = f"{row['largest_difference'] * 255:.0f}/255"
        table.append(cells)
    return [table]


def samples(record: dict) -> Samples:
    """Return nothing: equality takes no time."""
    return {}


def to_csv(rows: list[Row]) -> str:
    """Return one line per form and picture, with all digits."""
    lines = [
        {"form": row.name, "precision": row.precision, "picture": comparison.name}
        | {f"reference {metric}": value for metric, value in comparison.reference.items()}
        | comparison.exported
        | {name: value for name, value in asdict(comparison).items() if "difference" in name}
        for row in rows
        if row.parity
        for comparison in row.parity.comparisons
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0] if lines else ["form"])
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
