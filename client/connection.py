"""A connection to one or more Triton servers that serve the model ``dim`` over gRPC."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Literal, TypeVar

import numpy as np
import tenacity
from tqdm import tqdm
from tritonclient.grpc import InferenceServerClient, InferenceServerException

from client.address import DEFAULT_URL, grpc_target
from client.channel import channel_options
from client.errors import (
    ModelMissingError,
    ServerRefusedError,
    ServerUnavailableError,
    TooLargeError,
)
from client.grpc_errors import explain, is_busy, is_gone, is_stopping, last_error, pause
from client.half import HALVED_FROM, PRIOR_AT_HALF_SIZE, at_half_size
from client.in_order import in_order
from client.request import Request
from client.tiles import Tile, join_tiles, plan_tiles, smaller_tiles, worthwhile_tiles
from client.tls import Tls
from client.transport import Carrier, InMessage, InSharedMemory
from client.views import mean_over_views
from matting.trimaps import has_unknown

MODEL = "dim"
DEFAULT_TIMEOUT = 300.0
"""Seconds: 8 megapixels, whole, in FP32 on two CPU cores take up to 90, and two may be in front."""
TILES_IN_FLIGHT = 2
"""Per server, over all photos together: one waits while another is run.

Of one photo, no more than there are servers: Triton 2.51 looks at a bounded queue when a request
arrives, and otherwise twice a second, so the last tile would wait although nothing is run.
"""

PRIORITIES = {"interactive": 1, "bulk": 2}
"""Levels of the model's `config.pbtxt`: the second waits while any of the first does."""

TileOption = int | Literal["auto", "off"]
Priority = Literal["interactive", "bulk"]
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Matte:
    """Alpha mattes from a Triton server.

    The connection is opened by the first request and kept. Threads may share one object.

    Parameters
    ----------
    url : str or sequence of str
        ``host:port`` of the server's gRPC endpoint. Several servers take turns; one that is
        down is left out until it is back. They should be about equally fast.
    timeout : float
        Seconds for one request (a photo, or one of its tiles), waiting and retries included. While
        the server is unavailable or its queue is full, the request is sent again after a random,
        exponentially growing pause. No other error is retried. A server that is silent for a
        third of this time is pinged, and counts as gone if it does not answer.
    priority : "interactive" or "bulk"
        Interactive requests overtake all bulk requests that wait in the server's queue.
    tls : Tls, optional
        Encrypt the connection; see `client.tls`.
    shm : bool
        Pass the pixels through shared memory (Linux's /dev/shm), not the connection, to one server
        on this machine that is open to it (``python -m server --shm``).

    Raises
    ------
    ValueError
        `timeout` is not positive, or `shm` is set with several servers.
    AddressError
        A `url` is not ``host:port``.
    TlsError
        A file of `tls` cannot be used.

    Examples
    --------
    >>> with Matte("127.0.0.1:8001") as matte:
    ...     alpha = matte.alpha(image, trimap)
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        timeout: float = DEFAULT_TIMEOUT,
        priority: Priority = "bulk",
        tls: Tls | None = None,
        shm: bool = False,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout} seconds, expected more than 0")
        if shm and len(urls) != 1:
            raise ValueError(f"shared memory with {len(urls)} servers, expected one")
        self.timeout = timeout
        self._priority = PRIORITIES[priority]
        self._servers = " or ".join(urls)
        self._closed = threading.Event()
        self._has_warned = False
        options = {
            "channel_args": channel_options(urls, timeout),
            **(tls.channel() if tls else {}),
        }
        self._client = InferenceServerClient(grpc_target(urls), **options)
        # That one asks the server whose turn it is, these one each. They connect when first asked.
        self._clients = [InferenceServerClient(url, **options) for url in urls]
        self._carrier: Carrier = InSharedMemory(self._client) if shm else InMessage()
        # One for all threads that share this object, so that they do not flood the server together.
        self._tile_pool = ThreadPoolExecutor(TILES_IN_FLIGHT * len(urls))
        self._tiles_of_a_photo = len(urls)

    def __enter__(self) -> "Matte":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Requests that are under way fail, and so do later ones."""
        self._closed.set()
        self._tile_pool.shutdown(wait=False, cancel_futures=True)
        self._carrier.close()
        for client in (self._client, *self._clients):
            client.close()

    def is_ready(self) -> bool:
        """Whether a server answers now and has the model loaded."""
        return not self._closed.is_set() and any(map(_is_ready, self._clients))

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for a server that answers and has the model loaded, but no longer than `seconds`.

        Raises
        ------
        ServerError
            Why there is none.
        """
        request = Request()
        with self._unless_closed():
            is_ready = self._retry(
                request,
                lambda left: self._client.is_model_ready(MODEL, client_timeout=left),
                seconds,
            )
        if not (is_ready or self.is_ready()):
            raise ModelMissingError(
                f"{self._servers} does not serve the model {MODEL!r} now; "
                "is it another Triton server?"
            )

    def alpha(
        self,
        image: np.ndarray,
        trimap: np.ndarray,
        tile: TileOption = "auto",
        show_progress: bool = False,
        request: Request | None = None,
        views: int = 1,
        knn: bool = False,
        half: bool = False,
    ) -> np.ndarray:
        """Estimate the alpha matte of one image.

        Parameters
        ----------
        image : ndarray, uint8, shape (H, W, 3)
            RGB.
        trimap : ndarray, uint8, shape (H, W)
            0 is background, 255 is foreground, every other value is unknown.
        tile : "auto", "off" or int
            Send the image whole (off), or only rectangles over its unknown region of at most this
            many pixels on a side, a multiple of 32 from 96. Memory on both sides is then bounded,
            and time grows with the unknown region, not with the image. Auto makes tiles where they
            are less work or the image is too large for the server, and smaller tiles if those are
            too large as well. See `client.tiles`.
        show_progress : bool
            Show a progress bar while tiles are under way.
        request : Request, optional
            Where to count rejections; its id goes to the server, and another thread can cancel it.
            By default a new one.
        views : int
            1, or the mean over 2 or 4 views of the image, which is better and as many times slower.
            See `client.views`.
        knn : bool
            Make edges better by the image's own colours. See `matting.knn`.
        half : bool
            Send the image at half its size if it is large, and make edges better as with `knn`. See
            `client.half`.

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
            One of its kinds in `client.errors`.
        """
        _check(image, trimap)
        if not has_unknown(trimap):
            return trimap.copy()
        request = request or Request()
        halved = half and trimap.size >= HALVED_FROM

        def infer(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
            if tile == "off":
                return self._infer(request, image, trimap)
            if tile != "auto":
                tiles = plan_tiles(trimap, tile)
                return self._infer_tiles(request, image, trimap, tiles, show_progress)
            return self._infer_auto(request, image, trimap, show_progress)

        def seen(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
            return mean_over_views(infer, image, trimap, views)

        with self._unless_closed():
            alpha = at_half_size(seen, image, trimap) if halved else seen(image, trimap)
        if knn or half:
            from matting.knn import PRIOR, knn_alpha  # SciPy takes half a second to load

            prior = PRIOR_AT_HALF_SIZE if halved else PRIOR
            alpha = knn_alpha(image, trimap, alpha, prior, request.check)
        request.check()
        return alpha

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """Raise our own error where a request failed because the connection was closed."""
        try:
            yield
        except Exception as error:  # gRPC, the pool of threads and its futures raise one each
            if not self._closed.is_set():
                raise
            raise ServerUnavailableError(
                f"the connection to {self._servers} was closed; make a new one"
            ) from error

    def _infer_auto(
        self, request: Request, image: np.ndarray, trimap: np.ndarray, show_progress: bool
    ) -> np.ndarray:
        tiles = worthwhile_tiles(trimap)
        while True:
            try:
                if tiles is None:
                    return self._infer(request, image, trimap)
                return self._infer_tiles(request, image, trimap, tiles, show_progress)
            except TooLargeError as error:
                smaller = smaller_tiles(trimap, tiles)
                if smaller is None:
                    raise
                logger.info("too large, sent again in smaller pieces: %s", error)
                tiles = smaller

    def _infer_tiles(
        self,
        request: Request,
        image: np.ndarray,
        trimap: np.ndarray,
        tiles: list[Tile],
        show_progress: bool,
    ) -> np.ndarray:
        def infer(tile: Tile) -> np.ndarray:
            return self._infer(request, tile.cut(image), tile.cut(trimap))

        with (
            closing(in_order(self._tile_pool, infer, tiles, self._tiles_of_a_photo)) as answers,
            tqdm(
                answers, total=len(tiles), unit="tile", leave=False, disable=not show_progress
            ) as progress,
        ):
            return join_tiles(trimap, tiles, progress)

    def _infer(self, request: Request, image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        """Send a photo or a tile: H x W x 3 and H x W in, H x W out."""
        batch = image[np.newaxis], trimap[np.newaxis, :, :, np.newaxis]

        def ask(seconds: float) -> np.ndarray | None:
            request.check()
            with self._carrier.carry(*batch, seconds) as tensors:
                request.is_asked = True
                result = self._client.infer(
                    MODEL,
                    tensors.inputs,
                    outputs=[tensors.output],
                    request_id=request.id,
                    headers=request.headers(),
                    priority=self._priority,
                    client_timeout=seconds,
                )
                return tensors.read(result)

        alpha, shape = self._retry(request, ask, self.timeout), (1, *trimap.shape, 1)
        if alpha is None or alpha.dtype != np.uint8 or alpha.shape != shape:
            found = "no alpha" if alpha is None else f"an alpha of {alpha.dtype} {alpha.shape}"
            raise ServerRefusedError(
                f"{self._servers} answered with {found}, expected uint8 {shape}; "
                f"its model {MODEL!r} is not Deep Image Matting"
            )
        return alpha[0, :, :, 0]

    def _retry(self, request: Request, ask: Callable[[float], Answer], timeout: float) -> Answer:
        """Call `ask` with the seconds that are left, again and again while no server is free."""
        deadline = time.monotonic() + timeout

        def is_worth_another(error: BaseException) -> bool:
            if is_busy(error):
                request.count_rejection()
            return is_busy(error) or is_gone(error)

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_another),
            wait=pause,
            stop=tenacity.stop_any(
                tenacity.stop_before_delay(timeout),
                tenacity.stop_when_event_set(self._closed),
            ),
            sleep=tenacity.sleep_using_event(self._closed),
            before_sleep=lambda state: self._warn(state, timeout),
            reraise=True,
        )
        try:
            answer = attempts(
                lambda: ask(min(max(deadline - time.monotonic(), 0.001), _LONGEST_CALL))
            )
        except InferenceServerException as error:
            raise explain(error, MODEL, self._servers, timeout, request) from error
        self._has_warned = False
        return answer

    def _warn(self, state: tenacity.RetryCallState, timeout: float) -> None:
        """Warn that there is no server: once for all requests that wait, until one has answered.

        The first two retries take well under a second: not worth a word. A full queue empties by
        itself, and is counted. A server that stops answers more quickly than the others.
        """
        error = last_error(state)
        unsaid = 9 if is_stopping(error) else 2
        if self._has_warned or state.attempt_number <= unsaid or is_busy(error):
            return
        self._has_warned = True
        logger.warning(
            "no server at %s yet, trying again for up to %g s (start one: python -m server)",
            self._servers,
            timeout,
        )


_LONGEST_CALL = 7 * 24 * 3600.0  # seconds; gRPC treats an infinite or enormous timeout as expired


def _is_ready(client: InferenceServerClient) -> bool:
    try:
        return client.is_model_ready(MODEL, client_timeout=5)
    except InferenceServerException:
        return False


def _check(image: np.ndarray, trimap: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, expected uint8 (H, W, 3), RGB and not empty"
        )
    if trimap.dtype != np.uint8 or trimap.shape != image.shape[:2]:
        raise ValueError(
            f"trimap is {trimap.dtype} {trimap.shape}, expected uint8 {image.shape[:2]}, as large "
            "as the image"
        )
