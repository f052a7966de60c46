"""What the processor of this machine can do."""

import re
from pathlib import Path


def has_vnni() -> bool:
    """Can this processor multiply eight bits and add them up in 32? Asks Linux; elsewhere no."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and bool(re.search(r"\bavx(512)?_vnni\b", cpuinfo.read_text()))
