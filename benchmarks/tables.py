"""Tables for people."""

from tabulate import tabulate


def markdown(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table; the first column is text, the others are aligned right."""
    alignment = ["left"] + ["right"] * (len(rows[0]) - 1)
    return tabulate(
        rows, headers="keys", tablefmt="pipe", colalign=alignment, disable_numparse=True
    )
