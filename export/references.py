"""Reads what `export.parity` wrote, with NumPy alone."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from export.errors import ExportError

NOT_OURS = (
    AttributeError,  # a single array, in Python 3.10 and before
    TypeError,  # the same
    EOFError,
    KeyError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Return arrays of a file that `export.parity.save_references` wrote, in the names' order.

    Raises
    ------
    ExportError
        It is no such file.
    """
    try:
        with np.load(path) as stored:
            return [stored[name] for name in names]
    except NOT_OURS as error:
        raise ExportError(f"{path}: write it with python -m export.parity ({error})") from error
