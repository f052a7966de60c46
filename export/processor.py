"""What the processor of this machine can do, as Linux says it; elsewhere nothing is known of it."""

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def cpu_field(name: str) -> str:
    """Return what Linux says of the first core; empty where it says nothing of that name."""
    for line in CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def cpu_flags() -> set[str]:
    """Return the processor's features, such as "avx2"."""
    return set((cpu_field("flags") or cpu_field("Features")).split())  # x86 or Arm


def has_vnni() -> bool:
    """Can this processor multiply eight bits and add them up in 32?"""
    return not cpu_flags().isdisjoint({"avx512_vnni", "avx_vnni"})
