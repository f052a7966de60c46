"""Everything that this machine can measure, in one folder: Markdown, HTML with plots, raw results.

Writes report.md, report.html (one file, nothing to load), report.json, and what every benchmark
writes. A benchmark that cannot run here is named with the reason.
"""

import argparse
import base64
import html
import shlex
from collections.abc import Set
from pathlib import Path

from benchmarks import gpu, suite
from benchmarks.against import LEAST, find_moves
from benchmarks.measure import Samples
from benchmarks.parity import WORST
from benchmarks.record import caption, new_record, read_record, to_json, write_files
from benchmarks.service import add_server_arguments
from benchmarks.tables import Section, to_html, to_markdown
from export.manifest import WEIGHTS, newest_version
from export.repository import MODEL

EXAMPLES = """examples:
  python -m benchmarks report -o out/report
  python -m benchmarks report --against out/last/report.json
"""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Deep Image Matting: benchmarks</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ border-bottom: 1px solid #ccc; padding: .2rem .8rem }}
svg, img {{ max-width: 100%; height: auto }}
</style>
<body>
{body}
</body>
</html>
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    command = commands.add_parser(
        "report",
        help=__doc__.splitlines()[0],
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_server_arguments(command)
    command.add_argument(
        "--only",
        nargs="+",
        choices=suite.BENCHMARKS,
        metavar="NAME",
        help=f"some of {', '.join(suite.BENCHMARKS)} (all but {', '.join(suite.LONG)})",
    )
    command.add_argument(
        "--against", type=Path, metavar="OLD.json", help="an older report.json: say what changed"
    )
    command.add_argument(
        "--quick", action="store_true", help="few and small, to see that everything works"
    )
    gpu.add_python_argument(command)
    suite.add_output(command, "out/report")
    command.set_defaults(run=run)


def run(options: argparse.Namespace, line: str) -> int:
    """Measure everything and write the report; return the exit code, 1 if anything has failed."""
    old = read_report(options.against) if options.against else None
    records, missing = measure_all(options)
    report = new_record("report", line, {"records": records, "not run": missing})
    chapters: dict[str, list[Section]] = {
        name: [caption(record), *suite.BENCHMARKS[name].render(record)]
        for name, record in records.items()
    }
    if missing:
        chapters["not run"] = [[f"{name}: {reason}" for name, reason in missing.items()]]
    if old:
        chapters["moved"] = moved(old, report)
    files = {
        "report.json": to_json(report),
        "report.md": as_markdown(report, chapters),
        "report.html": as_html(report, chapters, options.output / WORST),
    }
    write_files(options.output, files)
    print(to_markdown(chapters["moved"]) if old else "")
    print("\n".join(str(options.output / name) for name in files))
    return 1 if any(record.get("failed") for record in records.values()) else 0


def measure_all(options: argparse.Namespace) -> tuple[dict[str, dict], dict[str, str]]:
    """Run every benchmark; return the results, and why the others could not run."""
    parser = argparse.ArgumentParser()
    suite.add_commands(parser.add_subparsers(dest="command"))
    own = own_arguments(options)
    usual = [name for name in suite.BENCHMARKS if options.quick or name not in suite.LONG]
    chosen = options.only or usual
    records, missing = {}, {}
    for name in [name for name in suite.BENCHMARKS if name in chosen]:
        words = [name, *own.get(name, []), *(["--quick"] if options.quick else [])]
        print(f"{name}\n", flush=True)
        parsed = parser.parse_args([*words, "-o", str(options.output)])
        try:
            line = shlex.join(["python", "-m", "benchmarks", *words])
            records[name] = suite.measure(name, parsed, line)
        except suite.FAILURES as error:
            missing[name] = str(error)
    return records, missing


def own_arguments(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return, by benchmark, the arguments that say which model is measured, and where."""
    repository = ["--repository", str(options.repository)]
    server = [*repository, *(["--url", options.url] if options.url else [])]
    weights = [str(newest_version(options.repository / MODEL) / WEIGHTS)]
    served = ("latency", "throughput", "tiles", "edges", "masks", "flicker", "transport")
    return {
        "parity": weights,
        "precision": weights,
        "gpu": [*weights, "--tensorrt-python", options.tensorrt_python],
        **dict.fromkeys(served, server),
        **dict.fromkeys(("scaling", "soak"), repository),
    }


def read_report(path: Path) -> dict:
    """Return an older report.

    Raises
    ------
    OSError
        There is none, or it is another file.
    """
    try:
        report = read_record(path)
        report["records"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OSError(f"{path}: not a report.json that `benchmarks report` wrote") from None
    return report


def moved(old: dict, new: dict) -> list[Section]:
    """Return which times moved beyond noise since an older report."""
    before, after = samples(old), samples(new)
    moves, unclear = find_moves(before, after)
    common = sum(name in before for name in after)
    points = [
        f"{len(moves)} of {common - len(unclear)} times moved since {old['date'][:10]}: by "
        f"{LEAST:.0%} or more, the 95 % confidence intervals of their medians apart."
    ]
    if unclear:
        points.append(
            f"Of {len(unclear)} more it cannot be said: repeated fewer than six times, or too "
            "scattered."
        )
    if gone := old["records"].keys() - suite.BENCHMARKS:
        points.append(f"Left out, since no benchmark has that name now: {', '.join(sorted(gone))}.")
    points += differences(old, new)
    rows = [
        {
            "what": move.name,
            "before, ms": f"{move.before:.2f}",
            "now, ms": f"{move.after:.2f}",
            "change": f"{move.after / move.before - 1:+.1%}",
        }
        for move in moves
    ]
    return [points, *([rows] if rows else [])]


def differences(old: dict, new: dict) -> list[str]:
    """Return what else may have moved the times: every circumstance that differs, and the load."""
    common = old["records"].keys() & new["records"].keys()
    then, now = circumstances(old, common), circumstances(new, common)
    was, is_now = (", ".join(map(str, report["machine"]["load"])) for report in (old, new))
    return [
        *(
            f"Not under the same circumstances: {name} was {then.get(name) or 'none'}, "
            f"is {now.get(name) or 'none'}."
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ),
        f"Load averages over 1, 5 and 15 minutes were {was}, and are {is_now}.",
        "Each report is one sample of its machine: before believing a change of less than about "
        "20 %, repeat both.",
    ]


def circumstances(report: dict, benchmarks: Set[str]) -> dict[str, object]:
    """Return what times depend on: the machine, versions, and what each benchmark measured."""
    machine = report["machine"] | report["machine"]["packages"]
    found = {name: machine[name] for name in machine.keys() - {"packages", "load"}}
    for name in benchmarks:
        record = report["records"][name]
        own = {key: record[key] for key in ("weights", "engine", "precision") if key in record}
        found |= {f"{name}'s {key}": value for key, value in own.items()}
    return found


def samples(report: dict) -> Samples:
    """Return all milliseconds of a report by name, of the benchmarks that there are."""
    return {
        f"{name}, {what}": values
        for name, record in report["records"].items()
        if name in suite.BENCHMARKS
        for what, values in suite.BENCHMARKS[name].samples(record).items()
    }


def facts(report: dict) -> list[str]:
    """Return the machine and the versions, line by line."""
    machine = report["machine"] | report["machine"]["packages"]
    return [f"{name}: {value}" for name, value in machine.items() if name != "packages"]


def as_markdown(report: dict, chapters: dict[str, list[Section]]) -> str:
    """Return the report without plots."""
    head = ["# Benchmarks", f"{report['date']}: `{report['command']}`", facts(report)]
    return to_markdown(head) + "".join(
        f"\n## {name.capitalize()}\n\n{to_markdown(sections)}"
        for name, sections in chapters.items()
    )


def as_html(report: dict, chapters: dict[str, list[Section]], worst: Path) -> str:
    """Return the report with plots and the worst places, as one page that loads nothing."""
    from benchmarks.plots import plot

    body = ["<h1>Benchmarks</h1>", to_html([f"{report['date']}: `{report['command']}`"])]
    for name, sections in chapters.items():
        body += [f"<h2>{html.escape(name.capitalize())}</h2>", to_html(sections)]
        body += plot(report["records"][name]) if name in report["records"] else []
        if name == "parity":
            pixels = base64.b64encode(worst.read_bytes()).decode()
            body.append(f'<img alt="the worst places" src="data:image/png;base64,{pixels}">')
    body += ["<h2>Machine</h2>", to_html([facts(report)])]
    return PAGE.format(body="\n".join(body))
