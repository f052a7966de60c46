"""One photo's way through the servers, under the name by which their logs and traces know it."""

import secrets
import threading

from client.errors import CancelledError

ID_DIGITS = 32


class Request:
    """What is asked for one photo, whole or in tiles, as often as it is sent.

    Attributes
    ----------
    id : str
        32 hexadecimal digits, drawn at random: Triton's request id, and OpenTelemetry's trace id.
    rejections : int
        How often a server turned it, or a tile of it, away because its queue was full.
    is_asked : bool
        Whether it was sent, so that a server's log may know the id.

    Parameters
    ----------
    id : str, optional
        One of the caller's own, such as the trace id of what the caller is doing.

    Raises
    ------
    ValueError
        `id` is not 32 hexadecimal digits.
    """

    def __init__(self, id: str | None = None) -> None:
        self.id = secrets.token_hex(ID_DIGITS // 2) if id is None else id
        if len(self.id) != ID_DIGITS or set(self.id) - set("0123456789abcdef"):
            raise ValueError(f"request id is {id!r}, expected {ID_DIGITS} digits of 0-9 and a-f")
        self.rejections = 0
        self.is_asked = False
        self._counting = threading.Lock()
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        """Give it up, from another thread: nothing more of it is sent or computed.

        What a server has begun with, a photo or a tile, it ends.
        """
        self._is_cancelled.set()

    def check(self) -> None:
        """Raise `CancelledError` if it was cancelled."""
        if self._is_cancelled.is_set():
            raise CancelledError("the request was cancelled")

    def headers(self) -> dict[str, str]:
        """Return gRPC headers that make the server's spans a part of this trace (W3C's format)."""
        return {"traceparent": f"00-{self.id}-{secrets.token_hex(8)}-01"}

    def count_rejection(self) -> None:
        """Count one more, of one of the threads that send the photo's tiles."""
        with self._counting:
            self.rejections += 1
