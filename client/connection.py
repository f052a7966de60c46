"""A connection to one or more Triton servers that serve the model ``dim`` over gRPC."""

import json
import logging
import socket
import threading
import time
from collections.abc import Sequence

import numpy as np
import tenacity
from tritonclient.grpc import (
    InferenceServerClient,
    InferenceServerException,
    InferInput,
    InferRequestedOutput,
)

from matting.trimaps import has_unknown

MODEL = "dim"
DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT = 300.0
"""Seconds: on two CPU cores, a photo of 8 megapixels takes about 40, and three may be in front."""

logger = logging.getLogger(__name__)


class AddressError(ValueError):
    """The server's address is not ``host:port``."""


class ServerError(RuntimeError):
    """The server did not give an alpha; the message is one line for the user."""


class ServerUnavailableError(ServerError):
    """The server could not be reached, or went away and did not come back in time."""


class ServerTimeoutError(ServerError):
    """The server did not answer within the time allowed."""


class ServerRefusedError(ServerError):
    """The server answered with an error, or with something that is not an alpha."""


class ModelMissingError(ServerError):
    """The server runs, but does not serve the model."""


class Matte:
    """Alpha mattes from a Triton server.

    The connection is opened by the first request and kept. Threads may share one object.

    Parameters
    ----------
    url : str or sequence of str
        ``host:port`` of the server's gRPC endpoint. Several servers take turns; one that is
        down is left out until it is back. They should be about equally fast.
    timeout : float
        Seconds for one ``alpha``, waiting and retries included. While the server is unavailable,
        the request is sent again after a random, exponentially growing pause. No other error is
        retried.

    Raises
    ------
    AddressError
        A `url` is not ``host:port``.

    Examples
    --------
    >>> with Matte("127.0.0.1:8001") as matte:
    ...     alpha = matte.alpha(image, trimap)
    """

    def __init__(
        self, url: str | Sequence[str] = DEFAULT_URL, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout} seconds, expected more than 0")
        self.timeout = timeout
        self._servers = " or ".join(urls)
        self._closed = threading.Event()
        self._client = InferenceServerClient(_grpc_target(urls), channel_args=_CHANNEL_OPTIONS)

    def __enter__(self) -> "Matte":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Requests that are under way fail."""
        self._closed.set()
        self._client.close()

    def is_ready(self) -> bool:
        """Whether a server answers now and has the model loaded."""
        try:
            return self._client.is_model_ready(MODEL, client_timeout=5)
        except InferenceServerException:
            return False

    def alpha(self, image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        """Estimate the alpha matte of one image.

        Parameters
        ----------
        image : ndarray, uint8, shape (H, W, 3)
            RGB.
        trimap : ndarray, uint8, shape (H, W)
            0 is background, 255 is foreground, every other value is unknown.

        Returns
        -------
        ndarray, uint8, shape (H, W)
            0 is transparent, 255 is opaque. Known pixels keep the trimap's value; where nothing
            is unknown, this is a copy of the trimap and no server is asked.

        Raises
        ------
        ValueError
            The arrays are not what is described above.
        ServerError
            One of its four kinds in this module.
        """
        _check(image, trimap)
        if not has_unknown(trimap):
            return trimap.copy()
        inputs = [
            _tensor("image", image[np.newaxis]),
            _tensor("trimap", trimap[np.newaxis, :, :, np.newaxis]),
        ]
        return self._infer(inputs, (1, *trimap.shape, 1))[0, :, :, 0]

    def _infer(self, inputs: list[InferInput], shape: tuple[int, ...]) -> np.ndarray:
        deadline = time.monotonic() + self.timeout
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_unavailable),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
            stop=tenacity.stop_any(
                tenacity.stop_before_delay(self.timeout),
                tenacity.stop_when_event_set(self._closed),
            ),
            sleep=tenacity.sleep_using_event(self._closed),
            before_sleep=self._say_waiting,
            reraise=True,
        )
        try:
            return attempts(self._infer_once, inputs, shape, deadline)
        except InferenceServerException as error:
            raise self._explain(error) from error

    def _infer_once(
        self, inputs: list[InferInput], shape: tuple[int, ...], deadline: float
    ) -> np.ndarray:
        remaining = deadline - time.monotonic()
        result = self._client.infer(
            MODEL,
            inputs,
            outputs=[InferRequestedOutput("alpha")],
            client_timeout=min(max(remaining, 0.001), _LONGEST_CALL),
        )
        alpha = result.as_numpy("alpha")
        if alpha is None or alpha.dtype != np.uint8 or alpha.shape != shape:
            found = "no alpha" if alpha is None else f"an alpha of {alpha.dtype} {alpha.shape}"
            raise ServerRefusedError(
                f"{self._servers} answered with {found}, expected uint8 {shape}; "
                f"its model {MODEL!r} is not Deep Image Matting"
            )
        return alpha.copy()

    def _say_waiting(self, state: tenacity.RetryCallState) -> None:
        # The first two retries last well under a second: not worth a word.
        if state.attempt_number == 3:
            logger.warning(
                "no server at %s yet, trying again for up to %g s (start one: python -m server)",
                self._servers,
                self.timeout,
            )

    def _explain(self, error: InferenceServerException) -> ServerError:
        status, reason = _status(error), " ".join(str(error.message()).split())
        if status == "UNAVAILABLE":
            return ServerUnavailableError(
                f"no server at {self._servers} for {self.timeout:g} s ({reason}); "
                "start one with `python -m server`, or give --url another server's gRPC port"
            )
        if status == "DEADLINE_EXCEEDED":
            return ServerTimeoutError(
                f"no answer from {self._servers} within {self.timeout:g} s; "
                "allow more with --timeout, or send less: smaller photos, fewer --jobs"
            )
        if status == "NOT_FOUND":
            return ModelMissingError(
                f"{self._servers} does not serve the model {MODEL!r} ({reason}); "
                "is it another Triton server?"
            )
        return ServerRefusedError(f"{self._servers} refused the request: {reason}")


_LONGEST_CALL = 7 * 24 * 3600.0  # seconds; gRPC takes an infinite or enormous timeout for none left

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own defaults, 1 s growing to 120 s, find a restarted server too late.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]


def _grpc_target(urls: list[str]) -> str:
    """One server is named as it is; for several, gRPC takes a list of IPv4 addresses."""
    for url in urls:
        host, _, port = url.rpartition(":")
        if not host or not port.isdecimal() or "/" in url:
            raise AddressError(f"server is {url!r}, expected host:port, for example {DEFAULT_URL}")
    if len(urls) == 1:
        return urls[0]
    return "ipv4:" + ",".join(_ipv4(url) for url in urls)


def _ipv4(url: str) -> str:
    host, _, port = url.rpartition(":")
    try:
        return f"{socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]}:{port}"
    except OSError as error:
        raise ServerUnavailableError(
            f"{host!r} has no IPv4 address ({error.strerror}); check --url"
        ) from error


def _check(image: np.ndarray, trimap: np.ndarray) -> None:
    for name, array, shape in (("image", image, "(H, W, 3)"), ("trimap", trimap, "(H, W)")):
        wanted_rank = shape.count(",") + 1
        if array.dtype != np.uint8 or array.ndim != wanted_rank or array.size == 0:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, expected uint8 {shape} and not empty"
            )
    if image.shape[2] != 3:
        raise ValueError(f"image has {image.shape[2]} channels, expected 3 (RGB)")
    if image.shape[:2] != trimap.shape:
        raise ValueError(f"image is {image.shape[:2]} and trimap {trimap.shape} (height, width)")


def _tensor(name: str, array: np.ndarray) -> InferInput:
    tensor = InferInput(name, list(array.shape), "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor


def _status(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def _is_unavailable(error: BaseException) -> bool:
    return isinstance(error, InferenceServerException) and _status(error) == "UNAVAILABLE"
