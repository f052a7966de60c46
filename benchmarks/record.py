"""Results on disk: what was measured, on which machine, when, and by which command."""

import datetime
import json
from pathlib import Path

from benchmarks.measure import INSTRUCTIONS, machine
from matting.files import write_whole


def new_record(benchmark: str, command: str, content: dict[str, object]) -> dict[str, object]:
    """Return a result with everything needed to read it a year later, ready for JSON."""
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine(),
        **content,
    }


def caption(record: dict) -> str:
    """Return in one sentence where and when a result was measured, and how to repeat it."""
    machine = record["machine"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    best = [name for name in INSTRUCTIONS if name in machine["instructions"]][-1:]
    where = ", ".join([machine["cpu"], f"{machine['cores']} cores", *best]) + gpu
    return f"Measured on {where}, {record['date'][:10]}: `{record['command']}`."


def write_files(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files into a folder, made if it is not there, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content.encode() if isinstance(content, str) else content)


def to_json(record: dict[str, object]) -> str:
    """Return a record as text."""
    return json.dumps(record, indent=1) + "\n"


def read_record(path: Path) -> dict:
    """Return a record from its file."""
    return json.loads(path.read_text())
