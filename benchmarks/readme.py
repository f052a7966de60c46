"""The README's tables of results: what the committed results say, no more and no less.

A table stands between `<!-- results: NAME -->` and `<!-- /results -->`; it is drawn from
`benchmarks/results/NAME.json`, a file that a benchmark wrote.
"""

import argparse
import re
from pathlib import Path

from benchmarks.latency import peer_notes, peer_rows
from benchmarks.record import caption, read_record, write_files
from benchmarks.suite import BENCHMARKS
from benchmarks.tables import Section, to_markdown

RESULTS = Path(__file__).parent / "results"
MARKED = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def fill(text: str) -> str:
    """Return Markdown with every marked table drawn anew."""

    def draw(match: re.Match) -> str:
        record = read_record(RESULTS / f"{match[2]}.json")
        sections = [*tables(record), caption(record)]
        return f"{match[1]}{to_markdown(sections)}{match[3]}"

    return MARKED.sub(draw, text)


def tables(record: dict) -> list[Section]:
    """Return what a page shows of a result: all, but of latencies only the peers."""
    name = record["benchmark"]
    if name == "latency":
        return [peer_rows(record), peer_notes(record)]
    return BENCHMARKS[name].render(record)


def names(text: str) -> list[str]:
    """Return the results that are named in Markdown."""
    return [match[2] for match in MARKED.finditer(text)]


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add the command that draws the tables of a Markdown file anew."""
    command = commands.add_parser("readme", help=__doc__.splitlines()[0], description=__doc__)
    command.add_argument("file", type=Path, nargs="?", default=Path("README.md"))
    command.set_defaults(run=run)


def run(options: argparse.Namespace, line: str) -> int:
    """Draw the tables and say which; return the exit code."""
    text = options.file.read_text()
    write_files(options.file.parent, {options.file.name: fill(text)})
    print(f"{options.file}: {', '.join(names(text)) or 'no marked tables'}")
    return 0
