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
import signal
import sys
from pathlib import Path

import torch

from train.arguments import count, decay, devices, rate, seed_number, values
from train.dataset import BACKGROUNDS
from train.network import STRIDE
from train.stages import STAGES

side = values(int, lambda v: v >= STRIDE and v % STRIDE == 0, f"a multiple of {STRIDE}")


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
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the run"
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
        "--seed",
        type=seed_number,
        default=0,
        metavar="N",
        help="seed of the first run (default: 0)",
    )
    parser.add_argument(
        "--seeds",
        type=count,
        default=1,
        metavar="N",
        help="runs of each stage, with as many seeds; the best is kept (default: 1)",
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
    recipe = parser.add_argument_group("recipe", "replaces the stage's own numbers")
    recipe.add_argument(
        "--steps", type=count, metavar="N", help="length of a run, rounded up to whole validations"
    )
    recipe.add_argument(
        "--validate-every", type=count, metavar="STEPS", help="steps between validations"
    )
    recipe.add_argument(
        "--batch-size", type=count, metavar="N", help="samples per step and process"
    )
    recipe.add_argument("--crop", type=side, metavar="PIXELS", help="side of training samples")
    recipe.add_argument(
        "--learning-rate", type=rate, metavar="RATE", help="Adam's peak rate, after the warm-up"
    )
    recipe.add_argument(
        "--averaging",
        type=decay,
        metavar="DECAY",
        help="decay of the weights' moving average, after its warm-up; 0: no averaging",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add which devices the run uses."""
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--accelerator",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="what to train on (default: %(default)s)",
    )
    machine.add_argument(
        "--devices",
        type=devices,
        default="auto",
        metavar="N",
        help="number of devices (default: all GPUs)",
    )
    machine.add_argument(
        "--nodes", type=count, default=1, metavar="N", help="number of machines (default: 1)"
    )
    machine.add_argument(
        "--precision",
        choices=("32", "bf16-mixed", "16-mixed"),
        default="bf16-mixed" if torch.cuda.is_available() else "32",
        help="of training steps; validations are in FP32 (default here: %(default)s)",
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # Lightning takes seconds to load: not for --help.
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from train.runs import WRONG_INPUT, run_all

    try:
        run_all(options)
    except WRONG_INPUT as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except SIGTERMException:  # of Lightning, which would end with 0 as if all were done
        return stopped(signal.SIGTERM)
    except KeyboardInterrupt:
        return stopped(signal.SIGINT)
    except SystemExit as error:  # of Lightning, which ends with 1 after Ctrl-C
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        return stopped(signal.SIGINT)
    return 0


def stopped(by: signal.Signals) -> int:
    """Say that the run was stopped by a signal; return the exit code, as shells have it."""
    print(f"\ntrain: stopped by {by.name}; continue with --resume", file=sys.stderr)
    return 128 + by


if __name__ == "__main__":
    sys.exit(main())
