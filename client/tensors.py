"""What a request carries: pixels in its message, or in memory shared with a server beside us."""

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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

IN_USE = "currently in use"
"""Why Triton does not let go of memory, in its words."""


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
    """The pixels are in Linux's shared memory, of which the server is told for each request.

    So one that was started anew lacks nothing.
    """

    def __init__(self, client: InferenceServerClient) -> None:
        self._client = client
        self._used: deque[str] = deque()

    @contextmanager
    def carry(self, image: np.ndarray, trimap: np.ndarray, seconds: float) -> Iterator[Tensors]:
        """See `Carrier`.

        Raises
        ------
        SharedMemoryError
            There is no room for them.
        InferenceServerException
            The server is gone, on another machine, or closed to this.
        """
        place = image.nbytes + trimap.nbytes
        memory = _reserve(place + trimap.nbytes)
        name = memory.name.lstrip("/")
        try:
            _fill(memory, image, 0)
            _fill(memory, trimap, image.nbytes)
            self._client.register_system_shared_memory(
                name, f"/{name}", memory.size, client_timeout=seconds
            )
            inputs, output = _inputs(image, trimap), InferRequestedOutput("alpha")
            inputs[0].set_shared_memory(name, image.nbytes)
            inputs[1].set_shared_memory(name, trimap.nbytes, image.nbytes)
            output.set_shared_memory(name, trimap.nbytes, place)
            yield Tensors(inputs, output, lambda result: _take(memory, place, result))
        finally:
            memory.close()
            memory.unlink()
            self._used.append(name)
            self._take_back()

    def close(self) -> None:
        """Leave nothing with the server, unless it is still at work on it after a second."""
        deadline = time.monotonic() + 1
        while self._used and time.monotonic() < deadline:
            self._take_back()
            time.sleep(0.01)

    def _take_back(self) -> None:
        """Let the server forget all that it has done with.

        Triton does not yet forget, and before 24.12 refuses to, what its last answer was made of
        a moment ago, or what it still works on for a client that waited no longer.
        """
        for _ in range(len(self._used)):
            try:
                name = self._used.popleft()
            except IndexError:  # another thread is at it
                return
            try:
                self._client.unregister_system_shared_memory(name, client_timeout=1)
            except InferenceServerException as error:
                if IN_USE in error.message():
                    self._used.append(name)


def _inputs(image: np.ndarray, trimap: np.ndarray) -> list[InferInput]:
    arrays = {"image": image, "trimap": trimap}
    return [InferInput(name, list(array.shape), "UINT8") for name, array in arrays.items()]


def _reserve(size: int) -> SharedMemory:
    """Return shared memory that is really there: else writing into it would end the program."""
    try:
        memory = SharedMemory(f"dim-{uuid.uuid4().hex}", create=True, size=size)
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
