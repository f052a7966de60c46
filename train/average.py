"""The mean of several checkpoints of one network ("model soup").

Weights that were trained further, averaged with those they started from, are often better than
either, and on more kinds of pictures: Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022. The file has the metadata of the last checkpoint, and the SHA-256 of all.

examples:
  python -m train.average before.safetensors after.safetensors -o mean.safetensors
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from matting.files import sha256
from matting.signals import run_until_stopped
from train.checkpoint import (
    SCORE,
    CheckpointError,
    differences,
    load_checkpoint,
    read_facts,
    save_checkpoint,
)


def average(paths: Sequence[Path], output: Path) -> None:
    """Write the mean of checkpoints, as safetensors with the facts of the last of them.

    Raises
    ------
    CheckpointError
        One cannot be read, or they are not of the same stage's network; or the output is named
        like another format.
    """
    if output.suffix != ".safetensors":
        raise CheckpointError(f"{output}: is written as safetensors; use the suffix .safetensors")
    networks = [load_checkpoint(path) for path in paths]
    states = [network.state_dict() for network in networks]
    for path, state in zip(paths, states, strict=True):
        if complaints := differences(states[0], state):
            raise CheckpointError(f"{path}: not the network of {paths[0]}: {'; '.join(complaints)}")
    networks[0].load_state_dict(
        {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    )
    hashes = [sha256(path) for path in paths]
    save_checkpoint(networks[0], output, facts_of(paths[-1]) | {"mean of SHA-256": hashes})


def facts_of(path: Path) -> dict[str, object]:
    """Return the facts of a file that also hold for the mean; none of mmediting's files."""
    if path.suffix != ".safetensors":
        return {}
    return {name: fact for name, fact in read_facts(path).items() if name != SCORE}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, nargs="+", help=".safetensors, or mmediting's .pth")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the mean, .safetensors"
    )
    options = parser.parse_args(arguments)
    try:
        average(options.weights, options.output)
    except (CheckpointError, OSError) as error:
        print(f"train.average: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(run_until_stopped("train.average", main))
