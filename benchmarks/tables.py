"""A benchmark's results as text, tables and lists, in Markdown and in HTML."""

import html
import re

from tabulate import tabulate

Row = dict[str, str]
Section = str | list[str] | list[Row]
"""A paragraph, a list of points, or a table's rows; the first column of a table is text."""


def to_markdown(sections: list[Section]) -> str:
    """Return sections as Markdown."""
    return "\n\n".join(_markdown(section) for section in sections) + "\n"


def to_html(sections: list[Section]) -> str:
    """Return sections as the inside of an HTML body."""
    return "\n".join(_html(section) for section in sections) + "\n"


def _markdown(section: Section) -> str:
    if isinstance(section, str):
        return section
    if isinstance(section[0], str):
        return "\n".join(f"- {point}" for point in section)
    return _table(section, "pipe")


def _html(section: Section) -> str:
    if isinstance(section, str):
        return f"<p>{_text(section)}</p>"
    if isinstance(section[0], str):
        points = "".join(f"<li>{_text(point)}</li>" for point in section)
        return f"<ul>{points}</ul>"
    return _table(section, "html")


def _text(markdown: str) -> str:
    """Return text for HTML; what stands between backticks is code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(markdown))


def _table(rows: list[Row], style: str) -> str:
    alignment = ["left"] + ["right"] * (len(rows[0]) - 1)
    return tabulate(rows, headers="keys", tablefmt=style, colalign=alignment, disable_numparse=True)
