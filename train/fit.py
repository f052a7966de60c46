"""One run: a stage with a seed, from its start or where it was cut off, to its best weights."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from train.checkpoint import SCORE, load_checkpoint, read_safetensors, save_checkpoint
from train.dataset import TrainingData
from train.initialise import randomise, start_from_vgg16
from train.memory import keep_freed_memory, memory_format
from train.module import Training, ValidationPictures
from train.network import DeepImageMatting
from train.stages import Stage

BEST = "best.safetensors"


class RunError(ValueError):
    """A run cannot start; the message says what to give or where to go."""


class CheckpointHere(ModelCheckpoint):
    """Lightning's, but the run's folder may have moved since it was cut off."""

    def load_state_dict(self, state: dict) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state[name]) for name in paths}
        ranking = {here(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state | moved | {"dirpath": self.dirpath, "best_k_models": ranking})


@dataclass(frozen=True)
class Machine:
    """Where runs run: Lightning's `accelerator`, `devices`, `num_nodes` and `precision`."""

    accelerator: str
    devices: str
    nodes: int
    precision: str


@dataclass(frozen=True)
class Run:
    """What a run was and came to. Its folder has best.safetensors, logs and pictures."""

    stage: int
    seed: int
    recipe: dict
    sad: float
    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / BEST

    @classmethod
    def finished(cls, folder: Path) -> "Run":
        """Read the facts that `fit` wrote into a run's best weights."""
        weights = folder / BEST
        facts = {name: json.loads(value) for name, value in read_safetensors(weights)[1].items()}
        try:
            own = (facts[name] for name in ("stage", "seed", "recipe", SCORE))
            return cls(*own, folder)
        except KeyError as error:
            raise RunError(
                f"{weights}: is not of a run, it does not say its {error}; choose another -o"
            ) from None


def starting_network(
    stage: Stage, seed: int, start: Path | None, vgg16: Path | None
) -> DeepImageMatting:
    """Return the network that training starts from; a refiner that is not there yet is random."""
    network = DeepImageMatting(refiner=stage.refiner)
    randomise(network, seed)
    if start:
        network.load_state_dict(load_checkpoint(start).state_dict(), strict=False)
    elif vgg16 and stage.number == 1:
        start_from_vgg16(network, vgg16)
    else:
        before = "--vgg16 FILE or --from CHECKPOINT" if stage.number == 1 else "--from CHECKPOINT"
        raise RunError(f"nothing to start stage {stage.number} from: give {before}")
    return network


def fit(
    stage: Stage,
    network: DeepImageMatting,
    data: TrainingData,
    seed: int,
    folder: Path,
    machine: Machine,
) -> Run:
    """Train, and keep the best of all validations by SAD.

    `folder` gets last.ckpt at every validation, from which the run goes on if it was cut off, and
    best.safetensors at its end.
    """
    # TensorFloat-32, on by default, moves pooling maxima; training in bf16 does not use it anyway.
    torch.backends.cudnn.allow_tf32 = False
    module = Training(network, stage, data, seed)
    # Not `save_weights_only`: callbacks are not asked then, and the weights would not be averaged.
    best = CheckpointHere(folder, "best", monitor="SAD", enable_version_counter=False)
    # Not `save_last`, which saves only when the best changes.
    latest = CheckpointHere(folder, "last", enable_version_counter=False)
    csv_logger = CSVLogger(folder, name="")
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        precision=machine.precision,
        max_steps=stage.steps,
        gradient_clip_val=stage.gradient_clip,
        val_check_interval=stage.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, stage.validate_every),
        default_root_dir=folder,
        use_distributed_sampler=False,  # repeats photographs until all processes have as many
        logger=[csv_logger, TensorBoardLogger(folder, name="", version=csv_logger.version)],
        enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=stage.averaging),
            best,
            latest,
            ValidationPictures(folder / "validation"),
            # To show a loss is to wait for the GPU, which must not happen at every step.
            TQDMProgressBar(refresh_rate=10 if torch.cuda.is_available() else 1),
        ],
    )
    device = trainer.strategy.root_device
    network.to(memory_format=memory_format(device))
    if device.type == "cpu":
        keep_freed_memory()
    last = folder / "last.ckpt"
    trainer.fit(module, ckpt_path=str(last) if last.exists() else None)
    if not best.best_model_path or not best.best_model_score.isfinite():
        raise RunError(f"{folder}: no validation had a finite SAD; lower the learning rate")
    if trainer.is_global_zero:
        state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")
        module.load_state_dict(state["state_dict"])
        facts = {
            "stage": stage.number,
            "seed": seed,
            "recipe": asdict(stage),
            "training data": {
                "foregrounds": len(data.foregrounds),
                "backgrounds": len(data.backgrounds),
            },
            SCORE: round(best.best_model_score.item(), 3),
        }
        save_checkpoint(module.network, folder / BEST, facts)
    trainer.strategy.barrier()
    return Run.finished(folder)
