"""The runs that a command line asks for: their folders, every stage with every seed, the table."""

import argparse
import os
import statistics
import sys
from functools import partial
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tabulate import tabulate

from matting.files import check_folder, write_whole
from matting.images import ImageError
from train.checkpoint import CheckpointError, load_checkpoint
from train.dataset import TrainingData
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


def check_nodes(nodes: int) -> None:
    """Refuse to wait for other machines for ever: without these variables none finds another."""
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    missing = [name for name in names if name not in os.environ]
    if nodes > 1 and missing and not {"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"} & os.environ.keys():
        raise RunError(
            f"--nodes {nodes}: {', '.join(missing)} not set; on each machine give the address and "
            "a free port of the first, and its own number from 0; or start with torchrun or Slurm"
        )


def note_other_stage(number: int, start: Path) -> None:
    """Say if the refiner of a checkpoint that a stage starts from is missing, or left out."""
    has_refiner = load_checkpoint(start).refiner is not None
    if number == 1 and has_refiner:
        print(f"train: {start}: stage 1 leaves its refiner out", file=sys.stderr)
    elif number == 3 and not has_refiner:
        missing = "has no refiner: stage 3 starts with a random one; --stage 2 trains one first"
        print(f"train: {start}: {missing}", file=sys.stderr)


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


def check_folders(options: argparse.Namespace, numbers: list[int]) -> None:
    """Refuse to write over any run, or to go on with another one than was cut off."""
    for number in numbers:
        folder, runs = stage_folder(options, number), run_folders(options, number)
        chosen = chosen_stage(options, number)
        if options.resume:
            for seed, own in runs.items():
                check_resumable(own, run_facts(chosen, seed, precision=options.precision))
        else:
            for used in (folder, *runs.values()):
                check_unused(used)
        if options.seeds > 1 and (folder / LAST).exists():
            raise RunError(f"{folder}: has a run of one seed in it; choose another -o")


def run_seeds(
    options: argparse.Namespace, number: int, start: Path | None, data: TrainingData
) -> list[Run]:
    """Train a stage with every seed; the best weights of all come to lie in its folder."""
    chosen, runs = chosen_stage(options, number), []
    machine = Machine(options.accelerator, options.devices, options.nodes, options.precision)
    for seed, folder in run_folders(options, number).items():
        new_network = partial(starting_network, chosen, seed, start, options.vgg16)
        runs.append(fit(chosen, new_network, data, seed, folder, machine))
    if len(runs) > 1:
        weights = best(runs).weights.read_bytes()
        rank_zero_only(write_whole)(stage_folder(options, number) / BEST, weights)
    return runs


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


def run_all(options: argparse.Namespace) -> None:
    """Train what the command line asks for, and print the table of all runs."""
    numbers = list(STAGES) if options.stage == "all" else [int(options.stage)]
    runs, start = [], options.start
    check_nodes(options.nodes)
    # What is wrong with these folders and files is said before all pictures are read.
    check_folders(options, numbers)
    starting_network(STAGES[numbers[0]], options.seed, start, options.vgg16)
    if start:
        rank_zero_only(note_other_stage)(numbers[0], start)
    options.output.mkdir(parents=True, exist_ok=True)
    check_folder(options.output)
    data = TrainingData.read(options.data, options.validation_images, options.backgrounds)
    for number in numbers:
        runs_of_stage = run_seeds(options, number, start, data)
        start = best(runs_of_stage).weights
        runs += runs_of_stage
    rank_zero_only(print)(f"{table(runs)}\n{stage_folder(options, number) / BEST}")
