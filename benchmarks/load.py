"""Requests to a Triton server from a process of their own, and what they cost.

Another process, so that the client's work and the benchmark's do not share one interpreter.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from itertools import islice

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

from client.connection import MODEL, Matte, TileOption

END_TO_END = "gRPC, end to end"
SERVER_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
"""How Triton divides a request's time in its statistics."""

TIMEOUT = 600.0
"""Seconds for one request, waiting in the server's queue included."""


class Client:
    """A client that runs in another process; to be closed, or used as a context.

    Parameters
    ----------
    url : str
        "host:port" of the server's gRPC endpoint.
    """

    def __init__(self, url: str) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _connect, (url,))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def request(self, image: np.ndarray, trimap: np.ndarray) -> dict[str, float]:
        """Matte one whole picture, H×W×3 and H×W uint8, with nothing else going on.

        Returns
        -------
        dict
            Milliseconds end to end, and of each of the server's parts, "server: queue" and so on.
        """
        return self._pool.submit(_request, image, trimap).result()

    def default_request(self, image: np.ndarray, trimap: np.ndarray) -> float:
        """Matte one picture as the client does unless told otherwise: in tiles where they pay.

        Returns
        -------
        float
            Milliseconds.
        """
        return self._pool.submit(_time_alpha, image, trimap, "auto").result()

    def load(
        self, image: np.ndarray, trimap: np.ndarray, concurrency: int, requests: int
    ) -> dict[str, object]:
        """Keep so many requests under way until `requests` are answered.

        Some more are sent after those, so that the load stays the same up to the last that counts.

        Parameters
        ----------
        image, trimap : ndarray
            The batch of every request, N×H×W×3 and N×H×W×1 uint8.
        concurrency, requests : int
            Requests under way at any time, and that count.

        Returns
        -------
        dict
            "images_per_second" and "samples_ms", the milliseconds of every request that counts.
        """
        return self._pool.submit(_load, image, trimap, concurrency, requests).result()


_matte: Matte
_triton: InferenceServerClient
"""The connections of the other process, which has one server for all its life."""


def _connect(url: str) -> None:
    global _matte, _triton
    _matte, _triton = Matte(url, timeout=TIMEOUT), InferenceServerClient(url)


def _request(image: np.ndarray, trimap: np.ndarray) -> dict[str, float]:
    count, before = _server_times()
    whole = _time_alpha(image, trimap, "off")
    # The server counts a request a moment after it has answered.
    while (statistics := _server_times())[0] == count:
        time.sleep(0.0005)
    parts = {
        f"server: {part}": (after - before[part]) / 1e6 for part, after in statistics[1].items()
    }
    return parts | {END_TO_END: whole}


def _time_alpha(image: np.ndarray, trimap: np.ndarray, tile: TileOption) -> float:
    start = time.perf_counter()
    _matte.alpha(image, trimap, tile)
    return (time.perf_counter() - start) * 1000


def _server_times() -> tuple[int, dict[str, int]]:
    """Return how many requests the server has answered, and its nanoseconds of each part."""
    (statistics,) = _triton.get_inference_statistics(MODEL).model_stats
    times = statistics.inference_stats
    return times.success.count, {part: getattr(times, part).ns for part in SERVER_PARTS}


def _load(
    image: np.ndarray, trimap: np.ndarray, concurrency: int, requests: int
) -> dict[str, object]:
    inputs = []
    for name, array in (("image", image), ("trimap", trimap)):
        tensor = InferInput(name, array.shape, "UINT8")
        inputs.append(tensor.set_data_from_numpy(array))

    def send() -> float:
        start = time.perf_counter()
        _triton.infer(MODEL, inputs, client_timeout=TIMEOUT)
        return (time.perf_counter() - start) * 1000

    with ThreadPoolExecutor(concurrency) as pool:
        start = time.perf_counter()
        under_way = [pool.submit(send) for _ in range(requests + concurrency - 1)]
        answered = list(islice(as_completed(under_way), requests))
        seconds = time.perf_counter() - start
        samples = [request.result() for request in answered]
    return {
        "images_per_second": requests * len(image) / seconds,
        "samples_ms": [round(sample, 3) for sample in samples],
    }
