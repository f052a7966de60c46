"""One request in layers: the network, what the served graph adds, the server, the connection."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import torch

from benchmarks.load import END_TO_END, Client
from benchmarks.measure import Samples, in_turns, median, stopwatch
from benchmarks.service import Served
from export.engine import engine_matte
from export.export import ARTIFACTS
from export.manifest import MNN_MODEL
from export.mnn import write_mnn
from export.parity import Matting
from export.runtime import compile_openvino, load_mnn, mnn_matte, onnx_matte
from train.predict import prepare

NETWORK = "network alone"
ENGINE = "engine: network, padding, mask"
INFER = "server: compute_infer"


def engine_in_process(version: Path, served: Served) -> Matting:
    """Load what is served from a version folder of the repository, without a server."""
    if served.engine == "mnn":
        return mnn_matte(version / MNN_MODEL)
    artifact = version / ARTIFACTS[served.engine]
    if served.engine == "tensorrt":
        return engine_matte(artifact.read_bytes(), served.engine)
    return onnx_matte(artifact, served.engine, served.precision)


def network_alone(model: Path, served: Served) -> Callable[[np.ndarray], np.ndarray]:
    """Cut the network out of a served ONNX graph, from the first convolution to the last sigmoid.

    Returns
    -------
    callable
        Normalised N×4×H×W to alpha N×1×H×W, float32; H, W multiples of 32.
    """
    nodes = onnx.load(model, load_external_data=False).graph.node
    made_by = {name: node for node in nodes for name in node.output}
    first = next(node for node in nodes if node.op_type == "Conv").input[0]
    if made_by[first].op_type == "Cast":  # of a network in FP16
        first = made_by[first].input[0]
    last = [node for node in nodes if node.op_type == "Sigmoid"][-1].output[0]
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "network.onnx"
        onnx.utils.extract_model(model, cut, [first], [last], check_model=False)
        if served.engine == "mnn":
            write_mnn(cut, Path(folder) / MNN_MODEL)
            return load_mnn(Path(folder) / MNN_MODEL, [first], last)
        if served.engine == "openvino":
            compiled = compile_openvino(cut, served.precision)
            return lambda x: compiled({first: x})[0]
        import onnxruntime

        session = onnxruntime.InferenceSession(cut, providers=["CPUExecutionProvider"])
        return lambda x: session.run([last], {first: x})[0]


def measure_layers(
    client: Client,
    engine: Matting,
    network: Callable[[np.ndarray], np.ndarray] | None,
    image: np.ndarray,
    trimap: np.ndarray,
    **limits: int | float | str,
) -> Samples:
    """Time every layer in turns on one picture, H×W×3 and H×W uint8.

    Parameters
    ----------
    client : Client
        Connected to a server that runs the same engine and has nothing else to do.
    network : callable or None
        See `network_alone`; None leaves that layer out.
    limits
        See `in_turns`.
    """
    batch = image[np.newaxis], trimap[np.newaxis, ..., np.newaxis]
    timers = [
        stopwatch(ENGINE, lambda: engine(*batch)),
        lambda: client.request(image, trimap),
    ]
    if network:
        pixels = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in batch)
        x = torch.cat(prepare(*pixels), dim=1).numpy()
        timers.insert(0, stopwatch(NETWORK, lambda: network(x)))
    return in_turns(timers, **limits)


def overheads(samples: Samples) -> dict[str, float]:
    """Return the shares of a request's time that are not the engine's, and not the network's.

    The engine's time is the server's own figure for the same request. The network's is a share of
    the engine's, both taken without a server.
    """
    around_engine = 1 - median(np.divide(samples[INFER], samples[END_TO_END]))
    shares = {"around the engine": around_engine}
    if NETWORK in samples:
        network_share = median(np.divide(samples[NETWORK], samples[ENGINE]))
        shares["around the network"] = 1 - (1 - around_engine) * network_share
    return shares
