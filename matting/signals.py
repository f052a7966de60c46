"""Other ways to be stopped than Ctrl-C, and how a program that was stopped ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

WRITING = 3.0
"""Seconds that threads get to end what they write."""
TOGETHER = 1.0
"""Seconds in which all signals are one: who closes a terminal sends two, by the shell as well."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the program.

    KeyboardInterrupt itself would, once it has left an `exec`, end Python by SIGINT even if caught.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


def run_until_stopped(name: str, main: Callable[[], int]) -> int:
    """Run a program; return its exit code, which is the shell's if a signal stops it.

    Then it is tidied up, and says so in one line: 130 after Ctrl-C, 143 after `kill`.
    """
    stop_as_with_ctrl_c()
    try:
        return main()
    except Stopped as stopped:
        print(f"{name}: stopped", file=sys.stderr)
        return 128 + stopped.signal


def stop_as_with_ctrl_c() -> None:
    """Let `kill`, and a terminal that is closed, end the program as Ctrl-C does: tidied up.

    A signal that is ignored stays so: `nohup` ignores SIGHUP. One that follows at once does not
    interrupt the tidying up.
    """
    last = -TOGETHER

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last >= TOGETHER:
            last = time.monotonic()
            raise Stopped(number)

    for number in _signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def end_stopped(code: int) -> NoReturn:
    """End the program, whose results nobody waits for any more, though threads compute them.

    Python would wait for the threads: minutes, for the better edges of large photos.
    """
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + WRITING
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(deadline - time.monotonic(), 0))
    os._exit(code)


def _signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # which Windows does not have
    return [signal.Signals[name] for name in names if hasattr(signal, name)]
