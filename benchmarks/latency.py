"""How long one picture takes, layer by layer, and beside the other ways to run the network.

Layers: the network alone, the engine with everything that the served graph adds, the server's own
parts (from its statistics), and the whole request over gRPC from another process. Peers, on the
same pixels: the network as mmediting runs it, and every other way that this machine offers. All are
timed in the same run, in turns.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.ceiling import flops, matrix_rate, memory_rate, moved_values
from benchmarks.layers import engine_in_process, measure_layers, network_alone, overheads
from benchmarks.load import END_TO_END, Client
from benchmarks.measure import Samples, how_often, in_turns, median, percentiles, stopwatch
from benchmarks.peers import REFERENCE, open_peers
from benchmarks.service import add_server_arguments, picture_of, serving, size, what_serves
from benchmarks.tables import Row, Section
from export.export import ARTIFACTS, CPU
from export.manifest import WEIGHTS, newest_version
from export.parity import Matting
from export.repository import MODEL
from matting.trimaps import is_unknown
from train.checkpoint import load_checkpoint

SERVED = "ours, served over gRPC"
TILED = "ours, served, the client's tiles where they pay"
ROUNDS = 7
"""At least: of fewer than six a median's interval cannot be told."""
QUICK = "64x64, three rounds, no torch.compile"
EXAMPLES = """examples:
  python -m benchmarks latency
  python -m benchmarks latency --sizes 320x320 1088x1920 --seconds 120
  python -m benchmarks latency --repository /srv/models --url 127.0.0.1:8001
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_server_arguments(parser)
    parser.add_argument(
        "--sizes",
        type=size,
        nargs="+",
        default=[(320, 320), (512, 512), (1024, 1024)],
        metavar="HxW",
        help="sizes of the pictures (320x320 512x512 1024x1024)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=40,
        help="time for the layers of each size, and again for its peers; more if "
        f"{ROUNDS} rounds take longer (%(default)s)",
    )


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: the samples of every layer and every peer at every size."""
    sizes = [(64, 64)] if options.quick else options.sizes
    least, seconds = (3, 0) if options.quick else (ROUNDS, options.seconds)
    limits = {"least": least, "most": 100, "seconds": seconds}
    version = newest_version(options.repository / MODEL)
    network = load_checkpoint(version / WEIGHTS)
    measured, rates = {}, []
    with (
        tempfile.TemporaryDirectory(prefix="latency-") as scratch,
        serving(options.repository, options.url) as url,
        Client(url) as client,
    ):
        served = what_serves(url, options.repository)
        device = "cuda" if served.engine == "tensorrt" else "cpu"
        engine = engine_in_process(version, served)
        alone = None if device == "cuda" else network_alone(version / ARTIFACTS[CPU], served)
        largest = tuple(np.max(sizes, axis=0).tolist())
        peers, skipped = open_peers(network, version, Path(scratch), largest, options.quick)
        for height, width in sizes:
            name = f"{height}x{width}"
            image, trimap = picture_of(height, width)
            # Beside every size, and the best counts: a shared machine's rate comes and goes.
            rates.append(matrix_rate(served.precision, device))
            measured[name] = {
                "flops": flops(network, height, width),
                "moved_values": moved_values(network, height, width),
                "unknown": float(is_unknown(trimap).mean()),
                "layers_ms": measure_layers(
                    client, engine, alone, image, trimap, title=f"{name} layers", **limits
                ),
                "peers_ms": measure_peers(
                    client, peers, image, trimap, title=f"{name} peers", **limits
                ),
            }
    return {
        **asdict(served),
        "matrix_rate": max(rates),
        "memory_rate": memory_rate(device),
        "skipped": skipped,
        "sizes": measured,
    }


def measure_peers(
    client: Client,
    peers: dict[str, Matting],
    image: np.ndarray,
    trimap: np.ndarray,
    **limits: int | float | str,
) -> Samples:
    """Time every peer in turns with a served request, on one picture, H×W×3 and H×W uint8."""
    batch = image[np.newaxis], trimap[np.newaxis, ..., np.newaxis]
    timers = [stopwatch(name, lambda matte=matte: matte(*batch)) for name, matte in peers.items()]
    ours = [
        lambda: {SERVED: client.request(image, trimap)[END_TO_END]},
        lambda: {TILED: client.default_request(image, trimap)},
    ]
    return in_turns(ours + timers, warmup=1, **limits)


def render(record: dict) -> list[Section]:
    """Return a record's tables and what follows from them."""
    return [peer_rows(record), peer_notes(record), notes(record), layer_rows(record)]


def samples(record: dict) -> Samples:
    """Return all milliseconds of a record by name."""
    return {
        f"{size_name}, {name}": values
        for size_name, measured in record["sizes"].items()
        for kind in ("layers_ms", "peers_ms")
        for name, values in measured[kind].items()
    }


def peer_rows(record: dict) -> list[Row]:
    """Return how many times faster than the reference each peer is, and its median."""
    sizes = record["sizes"]
    rows = []
    for name in next(iter(sizes.values()))["peers_ms"]:
        row = {"one picture": name}
        for size_name, measured in sizes.items():
            times = measured["peers_ms"]
            ratio = median(times[REFERENCE]) / median(times[name])
            row[size_name] = f"{ratio:.2f}× ({median(times[name]):.0f} ms)"
        rows.append(row)
    return rows


def peer_notes(record: dict) -> list[str]:
    """Return how often the peers were timed, and what the client's tiles depend on."""
    sizes = record["sizes"].values()
    timed = how_often([len(measured["peers_ms"][REFERENCE]) for measured in sizes])
    points = [f"{timed.capitalize()}."]
    if unknown := {f"{measured['unknown']:.0%}" for measured in sizes if "unknown" in measured}:
        points.append(f"One photo, stretched; {' or '.join(sorted(unknown))} of it is unknown.")
    return points


def notes(record: dict) -> list[str]:
    """Return what a request costs besides, how near the machine's limit it is, what was not run."""
    points = []
    computed_in = record["precision"].upper()
    if record["precision"] == "winograd":
        computed_in = "FP32; products that Winograd's convolutions save count as done"
    for name, measured in record["sizes"].items():
        layers = measured["layers_ms"]
        shares = ", ".join(f"{what} {share:.1%}" for what, share in overheads(layers).items())
        rate = measured["flops"] / (median(layers[END_TO_END]) / 1000)
        points.append(
            f"{name}: of a request's time is {shares}; {rate / 1e9:.0f} GFLOP/s, "
            f"{rate / record['matrix_rate']:.0%} of this machine's best matrix product "
            f"in {computed_in}."
        )
    return points + [f"Not run: {name}: {reason}." for name, reason in record["skipped"].items()]


def layer_rows(record: dict) -> list[Row]:
    """Return the percentiles of every layer, in milliseconds."""
    rows = []
    for name, measured in record["sizes"].items():
        for layer, samples in measured["layers_ms"].items():
            cells = {
                percentile: "–" if value is None else f"{value:.1f}"
                for percentile, value in percentiles(samples).items()
            }
            rows.append({"size": name, "layer, ms": layer} | cells | {"n": str(len(samples))})
    return rows
