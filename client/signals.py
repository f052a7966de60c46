"""Other ways to be stopped than Ctrl-C, and how a program that was stopped ends."""

import os
import signal
import threading
import time
from typing import NoReturn

WRITING = 3.0
"""Seconds that threads get to end what they write."""


def stop_as_with_ctrl_c() -> None:
    """Let `kill`, and a terminal that is closed, end the program as Ctrl-C does: tidied up.

    A signal that is ignored stays so: `nohup` ignores SIGHUP.
    """
    for number in _others():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def end_stopped(code: int) -> NoReturn:
    """End the program, whose results nobody waits for any more, though threads compute them.

    Python would wait for the threads: minutes, for the better edges of large photos.
    """
    for number in (signal.SIGINT, *_others()):
        signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + WRITING
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(deadline - time.monotonic(), 0))
    os._exit(code)


def _others() -> list[signal.Signals]:
    # Windows has no SIGHUP.
    return [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
