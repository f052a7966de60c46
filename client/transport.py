"""What a request carries: pixels in its message, or in memory shared with a server beside us."""

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from tritonclient.grpc import (
    InferenceServerClient,
    InferenceServerException,
    InferInput,
    InferRequestedOutput,
    InferResult,
)
from tritonclient.utils import triton_to_np_dtype

from client.errors import SharedMemoryError
from client.grpc_errors import is_busy, is_late

IN_USE = "currently in use"
"""Why Triton does not let go of memory, in its words."""
CLOSING = 1.0
"""Seconds that a client that is closed waits for the server to end what it works on."""


class Tensors(NamedTuple):
    """A photo and its trimap on the way to a server, and how to take what came back."""

    inputs: list[InferInput]
    output: InferRequestedOutput
    read: Callable[[InferResult], np.ndarray | None]
    """Return the alpha of an answer as it is, in an array of its own; None if it has none."""


class Carrier(Protocol):
    """A way to a server, for threads to share."""

    def carry(
        self, image: np.ndarray, trimap: np.ndarray, seconds: float
    ) -> AbstractContextManager[Tensors]:
        """Take image (N x H x W x 3) and trimap (N x H x W x 1), both uint8, for one request.

        Within so many seconds, where that needs the server.
        """

    def close(self) -> None:
        """Leave nothing with the server."""


class InMessage:
    """The pixels are in the request itself."""

    @contextmanager
    def carry(self, image: np.ndarray, trimap: np.ndarray, seconds: float) -> Iterator[Tensors]:
        inputs = _inputs(image, trimap)
        for tensor, array in zip(inputs, (image, trimap), strict=True):
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        yield Tensors(inputs, InferRequestedOutput("alpha"), _own_alpha)

    def close(self) -> None:
        pass


class InSharedMemory:
    """The pixels are in Linux's shared memory, which is registered with the server beforehand.

    Each request in flight has a region of its own. The next request uses it again, unless that is
    larger: new memory costs more than sending the pixels, and so does registering it.
    """

    def __init__(self, client: InferenceServerClient) -> None:
        self._client = client
        self._idle: deque[SharedMemory] = deque()
        self._in_flight: set[object] = set()
        self._done_with: deque[str] = deque()
        self._is_closed = False

    @contextmanager
    def carry(self, image: np.ndarray, trimap: np.ndarray, seconds: float) -> Iterator[Tensors]:
        """See `Carrier`.

        Raises
        ------
        SharedMemoryError
            There is no room for them.
        InferenceServerException
            The server is gone, on another machine, or closed to shared memory.
        RuntimeError
            This is closed.
        """
        place = image.nbytes + trimap.nbytes
        with self._under_way(), self._lend(place + trimap.nbytes, seconds) as memory:
            _fill(memory, image, 0)
            _fill(memory, trimap, image.nbytes)
            inputs, output = _inputs(image, trimap), InferRequestedOutput("alpha")
            inputs[0].set_shared_memory(memory.name, image.nbytes)
            inputs[1].set_shared_memory(memory.name, trimap.nbytes, image.nbytes)
            output.set_shared_memory(memory.name, trimap.nbytes, place)
            yield Tensors(inputs, output, lambda result: _take(memory, place, result))

    def close(self) -> None:
        """Leave nothing with the server, unless it is still at work on it after `CLOSING`."""
        self._is_closed = True
        deadline = time.monotonic() + CLOSING
        while (self._in_flight or self._idle or self._done_with) and time.monotonic() < deadline:
            self._discard_idle()
            self._take_back()
            time.sleep(0.01)
        self._discard_idle()

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Have `close` wait, from before memory is registered until it is idle or discarded."""
        request = object()
        # In this order, as `close` in the other: whichever thread comes second sees the first.
        self._in_flight.add(request)
        try:
            if self._is_closed:
                raise RuntimeError("closed")
            yield
        finally:
            self._in_flight.remove(request)

    @contextmanager
    def _lend(self, size: int, seconds: float) -> Iterator[SharedMemory]:
        memory = self._share(size, seconds)
        try:
            yield memory
        except BaseException as error:
            if is_busy(error):  # nothing was begun with it
                self._idle.append(memory)
            else:  # a new server knows none of it, and the old one may write into it yet
                self._discard(memory)
                self._discard_idle()
            raise
        else:
            self._idle.append(memory)

    def _share(self, size: int, seconds: float) -> SharedMemory:
        """Return memory of at least that size that is registered with the server."""
        with suppress(IndexError):  # none is idle
            memory = self._idle.pop()
            if memory.size >= size:
                return memory
            self._discard(memory)
        memory = _reserve(size)
        try:
            self._client.register_system_shared_memory(
                memory.name, f"/{memory.name}", memory.size, client_timeout=seconds
            )
        except BaseException:
            self._discard(memory)
            raise
        return memory

    def _discard(self, memory: SharedMemory) -> None:
        memory.close()
        memory.unlink()
        self._done_with.append(memory.name)
        self._take_back()

    def _discard_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._discard(self._idle.pop())

    def _take_back(self) -> None:
        """Unregister from the server what is not used any more.

        Before 24.12, Triton refuses that while it works on it for a client that has given up, and
        for a moment after an answer.
        """
        with suppress(IndexError):
            for _ in range(len(self._done_with)):
                name = self._done_with.popleft()
                try:
                    self._client.unregister_system_shared_memory(name, client_timeout=1)
                except InferenceServerException as error:
                    if IN_USE in error.message() or is_late(error):
                        self._done_with.append(name)


def _inputs(image: np.ndarray, trimap: np.ndarray) -> list[InferInput]:
    arrays = {"image": image, "trimap": trimap}
    return [InferInput(name, list(array.shape), "UINT8") for name, array in arrays.items()]


def _reserve(size: int) -> SharedMemory:
    """Return shared memory that is really allocated: else writing into it would end the program."""
    # It removes what a killed program leaves; to start it takes longer than all that follows.
    resource_tracker.ensure_running()
    try:
        name = f"dim-{os.getpid()}-{uuid.uuid4().hex}"
        memory = SharedMemory(name, create=True, size=size)
        try:
            with Path("/dev/shm", memory.name).open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            memory.close()
            memory.unlink()
            raise
    except OSError as error:
        raise SharedMemoryError(
            f"no shared memory of {size / 1e6:.1f} MB in /dev/shm ({error.strerror}); "
            "make room there, or leave out --shm"
        ) from error
    return memory


def _own_alpha(result: InferResult) -> np.ndarray | None:
    alpha = result.as_numpy("alpha")
    return None if alpha is None else alpha.copy()


# The arrays over shared memory stay in these functions: it cannot be closed while one is left.


def _fill(memory: SharedMemory, array: np.ndarray, place: int) -> None:
    np.ndarray(array.shape, array.dtype, memory.buf, place)[:] = array


def _take(memory: SharedMemory, place: int, result: InferResult) -> np.ndarray | None:
    output = result.get_output("alpha")
    if output is None:
        return None
    dtype = triton_to_np_dtype(output.datatype)
    return np.ndarray(tuple(output.shape), dtype, memory.buf, place).copy()
