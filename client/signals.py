"""Other ways to be stopped than Ctrl-C."""

import signal


def stop_as_with_ctrl_c() -> None:
    """Let `kill`, and a terminal that is closed, end the program as Ctrl-C does: tidied up.

    A signal that is ignored stays so: `nohup` ignores SIGHUP.
    """
    for name in {"SIGTERM", "SIGHUP"} & {*dir(signal)}:  # Windows has no SIGHUP
        number = signal.Signals[name]
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
