"""What a failed call means: whether another attempt is worth it, and what to tell the user."""

import re
from typing import TypeGuard

import tenacity
from tritonclient.grpc import InferenceServerException

from client.errors import (
    ModelMissingError,
    ServerBusyError,
    ServerError,
    ServerRefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
    SharedMemoryError,
    TooLargeError,
)
from client.request import Request

BUSY = ("Exceeds maximum queue size", "Request timeout expired")
"""What Triton says when a queue is full, and when a request has waited in it for too long."""
DEAD_BACKEND = re.compile("Stub process '.*' is not healthy")
"""What Triton says when its Python backend's process was killed."""
NOT_TRUSTED = ("handshake failed", "security handshaker", "Verification Check failed")
"""What gRPC says of certificates: one side's is not signed or named as the other expects."""
NOT_SHARED = ("restricted", "open shared memory region")
"""What Triton says if shared memory is closed to clients, or is another machine's."""
FORGOTTEN = "find shared memory region"
"""What Triton says after a restart to those who shared memory before."""
GONE = ("UNAVAILABLE", "CANCELLED")
"""gRPC's status if no server was reached, or one went away; a stopping one may cancel requests."""
STOPPING = "has no available versions"
"""What Triton says of a model when it was asked to stop and finishes requests in flight."""

TOO_LARGE = re.compile(
    "this server takes at most|to be between .* but received|memory|alloc", re.IGNORECASE
)
"""What the default model and TensorRT say of a size, and all engines of a lack of memory."""


def is_busy(error: BaseException | None) -> bool:
    """Whether the server turned the request away to protect itself."""
    return _is_unavailable(error) and any(words in error.message() for words in BUSY)


def is_gone(error: BaseException | None) -> bool:
    """Whether no server could be reached, or it went away."""
    # A server that is not trusted, or closed to us, still will be in a second.
    return _has_lost(error) or (
        _is_unavailable(error) and not (_is_distrust(error) or _is_not_shared(error))
    )


def is_late(error: InferenceServerException) -> bool:
    """Whether no answer came in time."""
    return _status(error) == "DEADLINE_EXCEEDED"


def is_stopping(error: BaseException | None) -> bool:
    """Whether the server was asked to stop, and takes nothing new."""
    return isinstance(error, InferenceServerException) and STOPPING in error.message()


def last_error(state: tenacity.RetryCallState) -> BaseException | None:
    """What the last attempt failed with."""
    return state.outcome.exception() if state.outcome else None


def pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: random, so that rejected requests do not return together."""
    longest = 4 if is_busy(last_error(state)) else 1
    return tenacity.wait_random_exponential(multiplier=0.1, max=longest)(state)


def explain(
    error: InferenceServerException, model: str, servers: str, timeout: float, request: Request
) -> ServerError:
    """Turn the last error of a request into one of `client.errors`, with the way out."""
    status, reason = _status(error), " ".join(str(error.message()).split())
    if is_busy(error):
        return ServerBusyError(
            f"{servers} was too busy for {timeout:g} s ({reason}); "
            "allow more time with --timeout, or use more servers"
        )
    if _is_distrust(error):
        return ServerRefusedError(
            f"no TLS connection to {servers} ({reason}); check --ca, --cert and --key"
        )
    if _is_not_shared(error):
        return SharedMemoryError(
            f"{servers} does not share memory ({reason}); start it on this machine with "
            "`python -m server --shm`, or leave out --shm"
        )
    if _is_unavailable(error) or _has_lost(error):
        return ServerUnavailableError(
            f"no server at {servers} for {timeout:g} s ({reason}); "
            "start one with `python -m server`, or give --url another server's gRPC port"
        )
    if is_late(error):
        return ServerTimeoutError(
            f"no answer from {servers} within {timeout:g} s; "
            "allow more time with --timeout, or send less: smaller photos, fewer --jobs"
        )
    if status == "NOT_FOUND":
        return ModelMissingError(
            f"{servers} does not serve the model {model!r} ({reason}); is it another Triton server?"
        )
    is_too_large = status == "RESOURCE_EXHAUSTED" or TOO_LARGE.search(reason)
    kind = TooLargeError if is_too_large else ServerRefusedError
    return kind(f"{servers} refused request {request.id}: {reason}")


def _is_distrust(error: InferenceServerException) -> bool:
    return any(words in error.message() for words in NOT_TRUSTED)


def _is_not_shared(error: InferenceServerException) -> bool:
    return any(words in error.message() for words in NOT_SHARED)


def _has_lost(error: BaseException | None) -> bool:
    """Whether the server lost the process that ran the model, or shared memory, or is stopping."""
    return is_stopping(error) or (
        isinstance(error, InferenceServerException)
        and (DEAD_BACKEND.search(error.message()) is not None or FORGOTTEN in error.message())
    )


def _is_unavailable(error: BaseException | None) -> TypeGuard[InferenceServerException]:
    return isinstance(error, InferenceServerException) and _status(error) in GONE


def _status(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")
