"""What a tab of the browser has under way, and can cancel from the first moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from client.errors import CancelledError
from client.request import Request


class Runs:
    """The runs of one tab, which numbers them upwards and has one at a time.

    While what was painted is uploaded, only the browser knows of a run: its end may come first.
    """

    def __init__(self) -> None:
        self._first_valid = 0
        self._failed: int | None = None
        self._request: Request | None = None

    @contextmanager
    def begin(self, number: int) -> Iterator[Request]:
        """Yield a run's request, already cancelled if the run was; note if the run fails."""
        # In this order, as `cancel` in the other: whichever thread comes second sees the first.
        request = self._request = Request()
        if number < self._first_valid:
            request.cancel()
        try:
            yield request
        except CancelledError:
            raise
        except Exception:
            self._failed = number
            raise

    def has_failed(self, number: int) -> bool:
        """Whether this run failed, and was not cancelled."""
        return self._failed == number

    def cancel(self, number: int) -> None:
        """Give up this run and those before it, whether they have begun or not."""
        self._first_valid = number + 1
        self.stop()

    def stop(self) -> None:
        """Give up what has begun."""
        if self._request:
            self._request.cancel()
