"""Files that are whole or not there."""

from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place first; what was there stays until all of it is written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
