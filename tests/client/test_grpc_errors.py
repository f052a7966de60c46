"""What a failed call means, and how long the client waits before it sends again."""

import pytest
import tenacity
from tritonclient.utils import InferenceServerException

from client.errors import ModelMissingError, ServerUnavailableError
from client.grpc_errors import BUSY, explain, is_gone, pause
from client.request import Request

BUSY_SERVER = InferenceServerException(BUSY[0], "StatusCode.UNAVAILABLE")
NO_SERVER = InferenceServerException("failed to connect", "StatusCode.UNAVAILABLE")


@pytest.mark.parametrize(("error", "longest"), [(BUSY_SERVER, 4), (NO_SERVER, 1)])
def test_pauses_grow_to_a_limit_and_are_spread(error: Exception, longest: float) -> None:
    for attempt in range(1, 2000, 7):
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = attempt
        state.set_exception((type(error), error, None))
        bound = min(longest, 0.1 * 2.0 ** min(attempt - 1, 10))
        pauses = [pause(state) for _ in range(100)]
        assert min(pauses) >= 0 and max(pauses) <= bound
        # Anywhere up to the bound: those who were turned away together do not return together.
        assert min(pauses) < 0.3 * bound and max(pauses) > 0.7 * bound


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("'dim' has no available versions", "NOT_FOUND", ServerUnavailableError),
        ("CANCELLED", "CANCELLED", ServerUnavailableError),
        ("Request for unknown model: 'dim' is not found", "NOT_FOUND", ModelMissingError),
    ],
)
def test_a_server_that_stops_is_gone_and_one_of_other_models_is_not(
    reason: str, status: str, kind: type[Exception]
) -> None:
    error = InferenceServerException(reason, f"StatusCode.{status}")
    assert is_gone(error) == (kind is ServerUnavailableError)
    said = explain(error, "dim", "gpu1:8001", 3, Request())
    assert type(said) is kind
    assert reason in str(said)
