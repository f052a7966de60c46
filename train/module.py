"""The training loop's inside: what one step and one validation are. Lightning does the rest."""

import math
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from matting.images import write_image
from train.dataset import TrainingData
from train.losses import matting_losses
from train.network import DeepImageMatting
from train.predict import predict_unrounded, to_pixels
from train.sheet import contact_sheet, matte_row
from train.stages import STAGES, Stage
from train.synthesis import Samples, Synthesis

PICTURES = 8
"""So many photographs are drawn at a validation."""


class Training(pl.LightningModule):
    """A network with a stage's losses, optimiser and data.

    `facts` say in every checkpoint what run it is of, for no other one may go on from it.
    """

    def __init__(
        self, network: DeepImageMatting, stage: Stage, data: TrainingData, seed: int, facts: dict
    ) -> None:
        super().__init__()
        self.network = network
        self.stage, self.data, self.seed, self.facts = stage, data, seed, facts
        # Over the photographs of all processes, which may have more or fewer; NaN if one is NaN.
        self.mean_sad = MeanMetric(nan_strategy="disable")
        if stage.freeze_backbone:
            network.backbone.requires_grad_(False)

    def train_dataloader(self) -> DataLoader:
        """Return this process's share of the batches, from the current step on.

        So several processes see different ones, and a resumed run those that were to come. They
        are made on the training device, which holds all pictures.
        """
        processes = self.trainer.world_size
        samples = Samples(
            [foreground.to(self.device) for foreground in self.data.foregrounds],
            [background.to(self.device) for background in self.data.backgrounds],
            Synthesis(crop=self.stage.crop),
            self.stage.batch_size,
            len(STAGES) * self.seed + self.stage.number,  # no stage gets another one's samples
            start=self.trainer.global_step * processes + self.trainer.global_rank,
            step=processes,
        )
        return DataLoader(samples, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """Return this process's share of the photographs, none of them twice.

        Where there are fewer than processes, each judges all: the mean is the same.
        """
        share = range(len(self.data.photographs))
        if len(share) >= self.trainer.world_size:
            share = share[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(self.data.photographs, batch_size=None, sampler=share)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        alpha, refined = self.network(batch["image"], batch["trimap"])
        terms = matting_losses(alpha, refined, batch, dict(self.stage.losses))
        self.log_dict({f"loss_{name}": value for name, value in terms.items()}, prog_bar=True)
        return sum(terms.values())

    def validation_step(self, photograph: tuple[str, Tensor, Tensor, Tensor]) -> Tensor:
        """Log the photograph's SAD, NaN if its alpha has one, and return that, H×W uint8."""
        _, image, trimap, truth = photograph
        with torch.autocast(self.device.type, enabled=False):  # judged as it will be used
            exact = predict_unrounded(
                self.network, image.permute(2, 0, 1)[None], trimap[None, None]
            )
        alpha = to_pixels(exact)[0, 0]
        sad = (alpha.float() - truth.float()).abs().sum() / 255 / 1000
        self.mean_sad.update(torch.where(exact.isfinite().all(), sad, torch.nan))
        self.log("SAD", self.mean_sad, prog_bar=True)
        return alpha

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["run"] = self.facts

    def configure_optimizers(self) -> dict:
        learning = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=self.stage.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_share)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def learning_rate_share(self, step: int) -> float:
        """Return the learning rate at a step, as a share of the highest: warm-up, then cosine."""
        warm = min(1.0, (step + 1) / self.stage.warmup_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(step / self.stage.steps, 1)))


class ValidationPictures(pl.Callback):
    """At each validation draws the first photographs with trimap, alpha, truth and error.

    Written as `validation/step_0001000.png`, and to TensorBoard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: Training,
        alpha: Tensor,
        photograph: tuple[str, Tensor, Tensor, Tensor],
        *_: int,
    ) -> None:
        if trainer.is_global_zero and len(self.rows) < PICTURES:
            name, image, trimap, truth = photograph
            arrays = (pixels.cpu().numpy() for pixels in (image, trimap, alpha, truth))
            self.rows.append(matte_row(*arrays, label=name))

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:
        if not self.rows:
            return
        sheet, self.rows = contact_sheet(self.rows), []
        self.folder.mkdir(exist_ok=True)
        write_image(self.folder / f"step_{trainer.global_step:07}.png", sheet)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("validation", sheet, trainer.global_step, None, "HWC")
