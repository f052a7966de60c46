"""Train Deep Image Matting: stage 1, 2 or 3, or all three one after the other.

The weights of the validation with the lowest SAD are kept, as best.safetensors. An interrupted run
continues with --resume, from its last validation.

examples:
  python -m train --stage all --data DATA --vgg16 vgg16-397923af.pth -o runs/first
  python -m train --stage 1 --data DATA --vgg16 vgg16-397923af.pth -o runs/stage1 --seeds 3
  python -m train --stage 2 --data DATA --from runs/stage1/best.safetensors -o runs/stage2
  python -m train --stage 2 --data DATA --from runs/stage1/best.safetensors -o runs/stage2 --resume
  MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 NODE_RANK=0 python -m train --nodes 2 ...
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tabulate import tabulate

from matting.files import write_whole
from matting.images import ImageError
from train.arguments import count, decay, devices, rate, seed_number, side
from train.checkpoint import CheckpointError
from train.dataset import BACKGROUNDS, TrainingData
from train.fit import (
    BEST,
    LAST,
    Machine,
    Run,
    RunError,
    check_resumable,
    check_unused,
    fit,
    starting_network,
)
from train.layouts import DataError
from train.stages import STAGES, Stage, run_facts, stage

WRONG_INPUT = (CheckpointError, DataError, ImageError, RunError, MisconfigurationException, OSError)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--stage",
        choices=[*map(str, STAGES), "all"],
        required=True,
        help="1: the encoder-decoder; 2: the refiner, the rest frozen; 3: both; all: one after "
        "the other",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="data folder; see python -m train.data --help",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for this run"
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--from", dest="start", type=Path, metavar="FILE", help="checkpoint to start from"
    )
    weights.add_argument(
        "--vgg16",
        type=Path,
        metavar="FILE",
        help="ImageNet weights to start stage 1 from: torchvision's .pth, or an npz of its arrays",
    )
    parser.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    parser.add_argument(
        "--seed", type=seed_number, default=0, metavar="N", help="of the first run (default: 0)"
    )
    parser.add_argument(
        "--seeds",
        type=count,
        default=1,
        metavar="N",
        help="runs of each stage, of which the best is kept (default: 1)",
    )
    add_recipe(parser)
    parser.add_argument(
        "--validation-images",
        type=count,
        metavar="N",
        help="use only this many, evenly chosen (default: all)",
    )
    parser.add_argument(
        "--backgrounds",
        type=count,
        default=BACKGROUNDS,
        metavar="N",
        help="use only this many, evenly chosen (default: %(default)s); held in memory",
    )
    add_machine(parser)
    return parser.parse_args(arguments)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add what may replace a stage's own numbers."""
    recipe = parser.add_argument_group("recipe", "in place of a stage's own numbers")
    recipe.add_argument(
        "--steps", type=count, metavar="N", help="length of a run, rounded up to whole validations"
    )
    recipe.add_argument(
        "--validate-every", type=count, metavar="STEPS", help="steps between validations"
    )
    recipe.add_argument(
        "--batch-size", type=count, metavar="N", help="samples of each process in a step"
    )
    recipe.add_argument("--crop", type=side, metavar="PIXELS", help="side of a training sample")
    recipe.add_argument(
        "--learning-rate", type=rate, metavar="RATE", help="Adam's highest, after the warm-up"
    )
    recipe.add_argument(
        "--averaging",
        type=decay,
        metavar="DECAY",
        help="of the weights' moving average, after its warm-up; 0: none",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add where the run runs."""
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--accelerator",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="(default: %(default)s)",
    )
    machine.add_argument(
        "--devices",
        type=devices,
        default="auto",
        metavar="N",
        help="how many of them (default: all GPUs)",
    )
    machine.add_argument(
        "--nodes", type=count, default=1, metavar="N", help="machines (default: 1)"
    )
    machine.add_argument(
        "--precision",
        choices=("32", "bf16-mixed", "16-mixed"),
        default="bf16-mixed" if torch.cuda.is_available() else "32",
        help="of a training step; validations are in FP32 (default here: %(default)s)",
    )


def check_nodes(nodes: int) -> None:
    """Refuse to wait for other machines for ever: without these variables none finds another."""
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    missing = [name for name in names if name not in os.environ]
    if nodes > 1 and missing and not {"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"} & os.environ.keys():
        raise RunError(
            f"--nodes {nodes}: {', '.join(missing)} not set; on each machine give the address and "
            "a free port of the first, and its own number from 0; or start with torchrun or Slurm"
        )


def chosen_stage(options: argparse.Namespace, number: int) -> Stage:
    """Return a stage with what the command line changes in it."""
    return stage(
        number,
        steps=options.steps,
        validate_every=options.validate_every,
        batch_size=options.batch_size,
        crop=options.crop,
        learning_rate=options.learning_rate,
        averaging=options.averaging,
    )


def stage_folder(options: argparse.Namespace, number: int) -> Path:
    """Return where the best weights of a stage come to lie."""
    return options.output / f"stage{number}" if options.stage == "all" else options.output


def run_folders(options: argparse.Namespace, number: int) -> dict[int, Path]:
    """Return the folder of each seed's run: the stage's own if there is one run only."""
    folder = stage_folder(options, number)
    if options.seeds == 1:
        return {options.seed: folder}
    seeds = range(options.seed, options.seed + options.seeds)
    return {seed: folder / f"seed{seed}" for seed in seeds}


def told_facts(options: argparse.Namespace, number: int, seed: int) -> dict:
    """Return what the command line tells of a run."""
    return run_facts(chosen_stage(options, number), seed, precision=options.precision)


def check_folders(options: argparse.Namespace, numbers: list[int]) -> None:
    """Refuse to write over any run, or to go on with another one than was cut off."""
    for number in numbers:
        folder, runs = stage_folder(options, number), run_folders(options, number)
        if options.resume:
            for seed, own in runs.items():
                check_resumable(own, told_facts(options, number, seed))
        else:
            for used in (folder, *runs.values()):
                check_unused(used)
        if options.seeds > 1 and (folder / LAST).exists():
            raise RunError(f"{folder}: has a run of one seed in it; choose another -o")


def run_seeds(
    options: argparse.Namespace, number: int, start: Path | None, data: TrainingData
) -> list[Run]:
    """Train a stage with every seed; the best weights of all come to lie in its folder."""
    folders = run_folders(options, number)
    runs = [run(options, number, start, data, seed, own) for seed, own in folders.items()]
    if len(runs) > 1:
        weights = best(runs).weights.read_bytes()
        rank_zero_only(write_whole)(stage_folder(options, number) / BEST, weights)
    return runs


def run(
    options: argparse.Namespace,
    number: int,
    start: Path | None,
    data: TrainingData,
    seed: int,
    folder: Path,
) -> Run:
    """Train a stage with a seed."""
    chosen = chosen_stage(options, number)
    machine = Machine(options.accelerator, options.devices, options.nodes, options.precision)
    network = starting_network(chosen, seed, start, options.vgg16)
    return fit(chosen, network, data, seed, folder, machine)


def best(runs: list[Run]) -> Run:
    return min(runs, key=lambda run: run.sad)


def table(runs: list[Run]) -> str:
    """Return a Markdown table: SAD of the best validation, by stage, over its seeds."""
    rows = []
    for number in sorted({run.stage for run in runs}):
        own = [run for run in runs if run.stage == number]
        sads, top = [run.sad for run in own], best(own)
        figures = statistics.mean(sads), statistics.pstdev(sads), top.sad
        rows.append((number, len(own), *figures, top.seed))
    names = ("stage", "seeds", "mean SAD", "spread", "best SAD", "best seed")
    return tabulate(rows, names, "pipe", floatfmt=".3f")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    numbers = list(STAGES) if options.stage == "all" else [int(options.stage)]
    runs, start = [], options.start
    try:
        check_nodes(options.nodes)
        # What is wrong with these folders and files is said before all pictures are read.
        check_folders(options, numbers)
        starting_network(STAGES[numbers[0]], options.seed, start, options.vgg16)
        data = TrainingData.read(options.data, options.validation_images, options.backgrounds)
        for number in numbers:
            runs_of_stage = run_seeds(options, number, start, data)
            start = best(runs_of_stage).weights
            runs += runs_of_stage
    except WRONG_INPUT as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    rank_zero_only(print)(f"{table(runs)}\n{stage_folder(options, number) / BEST}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
