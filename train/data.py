"""Check a data set, or make one from what you have.

`--data` of the trainer and the evaluator reads:
  - a data folder: train/cutouts/ (RGBA) or train/pairs/{foreground,alpha}/, train/backgrounds/,
    val/{image,trimap,alpha}/;
  - mmediting's training_list.json and test_list.json, with the files they name.
`prepare` makes a data folder. Foregrounds and backgrounds are linked, the test set is composed:
each of its foregrounds on 20 backgrounds, or on all if there are fewer.

examples:
  python -m train.data check DATA
  python -m train.data prepare Combined_Dataset --backgrounds coco/train2014 \\
      --test-backgrounds VOC2012/JPEGImages -o DATA
  python -m train.data prepare my_cutouts --backgrounds my_photos -o DATA
"""

import argparse
import math
import sys
from pathlib import Path

from tabulate import tabulate

from matting.images import ImageError
from matting.signals import run_until_stopped
from train.arguments import count
from train.check import Part, Report, check
from train.compose import prepare
from train.layouts import DataError

SHOWN = 50
"""So many faults are printed, and so many notes; the rest is counted."""


def table(parts: list[Part]) -> str:
    """Return what the parts of a data set are as a Markdown table."""
    rows = []
    for part in parts:
        sizes = sorted((p.size for p in part.pictures if p.size), key=math.prod)
        ends = ["{1} x {0}".format(*size) for size in (sizes[0], sizes[-1])] if sizes else ["–"] * 2
        shares = (mean([getattr(p, share) for p in part.pictures]) for share in ("soft", "unknown"))
        rows.append((part.name, len(part.pictures), *ends, *shares))
    names = ("part", "pictures", "smallest", "largest", "soft", "unknown")
    return tabulate(rows, names, "pipe", colalign=("left", *["right"] * 5))


def mean(shares: list[float | None]) -> str:
    """Return the mean of the shares that are known, in percent."""
    known = [share for share in shares if share is not None]
    return f"{sum(known) / len(known):.1%}" if known else "–"


def text(report: Report) -> str:
    """Return a report as text."""
    lines = [table(report.parts)]
    for title, findings in (("notes", report.notes), ("wrong", report.faults)):
        if findings:
            more = [f"  and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
            lines += ["", f"{title}: {len(findings)}", *(f"  {f}" for f in findings[:SHOWN]), *more]
    if report.sha256:
        lines += ["", f"SHA-256 of the test set: {report.sha256}"]
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="check|prepare")
    command = commands.add_parser("check", help="check every file; exit code 1 if one is wrong")
    command.add_argument(
        "data", type=Path, metavar="DIR", help="data folder, or Composition-1k's own"
    )
    command.set_defaults(run=run_check)
    command = commands.add_parser("prepare", help="make a data folder")
    command.add_argument(
        "source",
        type=Path,
        metavar="DIR",
        help="Composition-1k as distributed; a folder of cut-outs (RGBA); or one with foreground/ "
        "and alpha/",
    )
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DATA", help="the new data folder"
    )
    command.add_argument("--backgrounds", type=Path, metavar="DIR", help="for training")
    command.add_argument(
        "--test-backgrounds",
        type=Path,
        metavar="DIR",
        help="for the test set: Pascal VOC's (VOC2012/JPEGImages) for Composition-1k; for your own "
        "pictures, a tenth of --backgrounds if this is not given",
    )
    command.add_argument(
        "--test-foregrounds",
        type=count,
        default=10,
        metavar="N",
        help="how many of your own to hold out for the test set (default: %(default)s)",
    )
    command.set_defaults(run=run_prepare)
    return parser.parse_args(arguments)


def run_check(options: argparse.Namespace) -> int:
    report = check(options.data)
    print(text(report))
    return 1 if report.faults else 0


def run_prepare(options: argparse.Namespace) -> int:
    manifest = prepare(
        options.source,
        options.output,
        options.backgrounds,
        options.test_backgrounds,
        options.test_foregrounds,
    )
    print(f"{options.output}: {len(manifest['pictures'])} test pictures composed")
    print(f"SHA-256 of the test set: {manifest['sha256']}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return options.run(options)
    except (DataError, ImageError, OSError) as error:
        print(f"train.data: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run_until_stopped("train.data", main))
