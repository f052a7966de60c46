"""How long the client waits before it sends again."""

import pytest
import tenacity
from tritonclient.utils import InferenceServerException

from client.failures import BUSY, pause

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
