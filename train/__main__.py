"""Train one stage of Deep Image Matting.

examples:
  python -m train --stage 1 --data DATA --vgg16 vgg16.npz -o runs/stage1
  python -m train --stage 2 --data DATA --from runs/stage1/best.safetensors -o runs/stage2
  python -m train --stage 1 --data DATA --vgg16 vgg16.npz -o runs/stage1 --resume
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import Subset

from train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from train.dataset import DataError, ValidationSet, read_backgrounds, read_foregrounds
from train.initialise import randomise, start_from_vgg16
from train.module import Training
from train.network import DeepImageMatting
from train.stages import STAGES, Stage, stage


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", type=int, choices=STAGES, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for this run")
    parser.add_argument("--from", dest="start", type=Path, help="checkpoint to start from")
    parser.add_argument("--vgg16", type=Path, help="npz of ImageNet weights, to start stage 1")
    parser.add_argument("--resume", action="store_true", help="go on where the run was cut off")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--crop", type=int, help="side of a training sample in pixels")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--validate-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument(
        "--validation-images", type=int, help="only so many, evenly chosen (default: all)"
    )
    parser.add_argument("--precision", default="bf16-mixed" if torch.cuda.is_available() else "32")
    return parser.parse_args(arguments)


def starting_network(options: argparse.Namespace, chosen: Stage) -> DeepImageMatting:
    """Return the network that training starts from; a refiner that is not there yet is random."""
    network = DeepImageMatting(refiner=chosen.refiner)
    randomise(network, options.seed)
    if options.start:
        network.load_state_dict(load_checkpoint(options.start).state_dict(), strict=False)
    elif options.vgg16:
        start_from_vgg16(network, options.vgg16)
    else:
        raise CheckpointError("nothing to start from: give --vgg16 FILE or --from CHECKPOINT")
    return network


def read_data(options: argparse.Namespace) -> dict:
    """Read everything under --data into memory."""
    validation = ValidationSet(options.data)
    if options.validation_images:
        step = max(len(validation) // options.validation_images, 1)
        validation = Subset(validation, range(0, len(validation), step))
    return {
        "foregrounds": read_foregrounds(options.data),
        "backgrounds": read_backgrounds(options.data),
        "validation": validation,
    }


def train(options: argparse.Namespace) -> Path:
    """Run the stage and return the best weights' path."""
    chosen = stage(
        options.stage,
        steps=options.steps,
        batch_size=options.batch_size,
        crop=options.crop,
        learning_rate=options.learning_rate,
    )
    module = Training(
        starting_network(options, chosen), chosen, read_data(options), seed=options.seed
    )
    best = ModelCheckpoint(
        options.output, monitor="SAD", filename="best", save_last=True, enable_version_counter=False
    )
    trainer = pl.Trainer(
        max_steps=chosen.steps,
        precision=options.precision,
        gradient_clip_val=chosen.gradient_clip,
        val_check_interval=options.validate_every,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        log_every_n_steps=10,
        default_root_dir=options.output,
        logger=[CSVLogger(options.output, name=""), TensorBoardLogger(options.output, name="")],
        callbacks=[best],
    )
    trainer.fit(module, ckpt_path=str(options.output / "last.ckpt") if options.resume else None)
    state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
    module.load_state_dict(state)
    weights = options.output / "best.safetensors"
    facts = {
        "stage": options.stage,
        "seed": options.seed,
        "recipe": asdict(chosen),
        "validation SAD": round(float(best.best_model_score), 3),
    }
    save_checkpoint(module.network, weights, facts)
    return weights


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        print(train(options))
    except (CheckpointError, DataError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
