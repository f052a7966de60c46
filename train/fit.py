"""One run: a stage with a seed, from its start or where it was cut off, to its best weights."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import TorchCheckpointIO
from torch import Tensor

from matting.files import write_whole
from train.checkpoint import SCORE, load_checkpoint, read_facts, save_checkpoint
from train.dataset import TrainingData
from train.initialise import randomise, start_from_vgg16
from train.memory import keep_freed_memory, memory_format
from train.module import Training, ValidationPictures
from train.network import DeepImageMatting
from train.stages import Stage, run_facts

BEST, LAST = "best.safetensors", "last.ckpt"


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


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's, but at every moment there is a whole file, the new one or the one before.

    Lightning moves it from $TMPDIR, and where that is another file system, to move is to copy.
    """

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: None = None) -> None:
        content = io.BytesIO()  # into a file torch.save would not say that a disk is full
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), content.getbuffer())


@dataclass(frozen=True)
class Machine:
    """Where runs run: Lightning's `accelerator`, `devices`, `num_nodes` and `precision`."""

    accelerator: str
    devices: str | int
    nodes: int
    precision: str


@dataclass(frozen=True)
class Run:
    """What a run was and came to. Its folder has best.safetensors, logs and pictures."""

    facts: dict
    sad: float
    folder: Path

    @property
    def stage(self) -> int:
        return self.facts["number"]

    @property
    def seed(self) -> int:
        return self.facts["seed"]

    @property
    def weights(self) -> Path:
        return self.folder / BEST

    @classmethod
    def finished(cls, folder: Path) -> "Run":
        """Read the facts that `fit` wrote into a run's best weights."""
        weights = folder / BEST
        facts = read_facts(weights)
        try:
            return cls(facts["run"], facts[SCORE], folder)
        except KeyError as error:
            raise RunError(
                f"{weights}: has no {error} in its metadata: it is not from a run, or an older "
                "version wrote it; choose another -o"
            ) from None


def check_unused(folder: Path) -> None:
    """Raise `RunError` if a folder has a run, whose files another one would overwrite."""
    if (folder / BEST).exists() or (folder / LAST).exists():
        raise RunError(f"{folder}: has a run in it; continue with --resume, or choose another -o")


def check_resumable(folder: Path, facts: dict) -> None:
    """Raise `RunError` if a folder has another run than that of the facts, finished or cut off."""
    if (folder / BEST).exists():
        has, state = Run.finished(folder).facts, "a finished"
        way = f"choose another -o, perhaps starting from its {BEST} with --from"
    elif (folder / LAST).exists():
        has, state = facts_of_cut_off(folder / LAST), "an unfinished"
        way = "resume it with its own settings, or choose another -o"
    else:
        return
    if other := other_facts(has, facts):
        raise RunError(f"{folder}: has {state} run of {other}; {way}")


def other_facts(has: dict, facts: dict) -> str:
    """Say in which facts a run differs from the given ones; nothing if it does not."""
    if has["number"] != facts["number"]:  # the rest differs with it
        return f"stage {has['number']}"
    other = [name for name, value in facts.items() if has.get(name) != value]
    return ", ".join(f"{name} {has.get(name, 'unknown')}" for name in other)


def facts_of_cut_off(last: Path) -> dict:
    """Read the facts of the run that a last.ckpt belongs to."""
    way = f"start in another -o, perhaps from {last.with_name('best.ckpt')} with --from"
    try:
        content = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise RunError(
            f"{last}: damaged or cut short ({last.stat().st_size} bytes); {way}"
        ) from error
    if "processes" not in content.get("run", ()):
        raise RunError(f"{last}: has no record of its run, as in older versions; {way}")
    return content["run"]


def starting_network(
    stage: Stage, seed: int, start: Path | None, vgg16: Path | None
) -> DeepImageMatting:
    """Return the network that training starts from; a refiner that is not there yet is random.

    Raises
    ------
    RunError
        There is nothing to start from.
    CheckpointError
        What there is cannot be read, or is another network.
    """
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


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return how an exponential moving average of weights is updated, for `AveragedModel`.

    It warms up: with its final decay from the start it would stay near the first weights for long.
    """

    def update(average: Tensor, weights: Tensor, updates: Tensor) -> Tensor:
        now = ((1 + updates) / (10 + updates)).clamp(max=decay)
        return average.lerp(weights, 1 - now)

    return update


def new_trainer(
    stage: Stage, folder: Path, machine: Machine, *checkpoints: CheckpointHere
) -> pl.Trainer:
    """Return what runs a stage on a machine, and writes logs, pictures and checkpoints."""
    csv_logger = CSVLogger(folder, name="")
    return pl.Trainer(
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
            WeightAveraging(avg_fn=moving_average(stage.averaging)),
            *checkpoints,
            ValidationPictures(folder / "validation"),
            # To show a loss is to wait for the GPU, which must not happen at every step.
            TQDMProgressBar(refresh_rate=10 if torch.cuda.is_available() else 1),
        ],
        plugins=WholeCheckpoints(),
    )


def fit(
    stage: Stage,
    new_network: Callable[[], DeepImageMatting],
    data: TrainingData,
    seed: int,
    folder: Path,
    machine: Machine,
) -> Run:
    """Train the network that `new_network` makes, and keep the best of all validations by SAD.

    `folder` gets last.ckpt at every validation, from which the run goes on if it was cut off, and
    best.safetensors at its end: where that is, all is done.

    Raises
    ------
    RunError
        The folder has another run, or no validation had a finite SAD.
    """
    # TensorFloat-32, on by default, moves pooling maxima; training in bf16 does not use it anyway.
    torch.backends.cudnn.allow_tf32 = False
    # Not `save_weights_only`: callbacks are not asked then, and the weights would not be averaged.
    best = CheckpointHere(folder, "best", monitor="SAD", enable_version_counter=False)
    # Not `save_last`, which saves only when the best changes.
    latest = CheckpointHere(folder, "last", enable_version_counter=False)
    trainer = new_trainer(stage, folder, machine, best, latest)
    device = trainer.strategy.root_device
    if device.type == "cpu":
        keep_freed_memory()
    facts = run_facts(
        stage, seed, precision=machine.precision, processes=trainer.world_size, **data.counts()
    )
    check_resumable(folder, facts)
    if (folder / BEST).exists():
        return Run.finished(folder)
    network = new_network().to(memory_format=memory_format(device))
    module = Training(network, stage, data, seed, facts)
    last = folder / LAST
    trainer.fit(module, ckpt_path=str(last) if last.exists() else None)
    if not best.best_model_path or not best.best_model_score.isfinite():
        raise RunError(f"{folder}: no validation had a finite SAD; lower the learning rate")
    if trainer.is_global_zero:
        state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")
        module.load_state_dict(state["state_dict"])
        sad = round(best.best_model_score.item(), 3)
        about = {"stage": stage.number, "run": facts, SCORE: sad}
        save_checkpoint(module.network, folder / BEST, about)
    trainer.strategy.barrier()
    return Run.finished(folder)
