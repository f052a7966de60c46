"""What can go wrong with an export; every message is one line that says what to do."""


class ExportError(RuntimeError):
    """The export could not be made, or is not equal to the network; nothing was written."""


def one_line(error: object) -> str:
    """Return an error's text as one line."""
    return " ".join(str(error).split())
