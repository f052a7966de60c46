"""The training loop's inside: what one step and one validation are. Lightning does the rest."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from train.losses import matting_losses
from train.network import DeepImageMatting
from train.predict import predict_alpha
from train.stages import Stage
from train.synthesis import Samples, Synthesis


class Training(pl.LightningModule):
    """A network with a stage's losses, optimiser and data."""

    def __init__(self, network: DeepImageMatting, stage: Stage, data: dict, seed: int) -> None:
        super().__init__()
        self.network, self.stage, self.data, self.seed = network, stage, data, seed
        if stage.freeze_backbone:
            network.backbone.requires_grad_(False)

    def train_dataloader(self) -> DataLoader:
        """Return the batches from the current step on, so that a resumed run sees the same ones."""
        samples = Samples(
            self.data["foregrounds"],
            self.data["backgrounds"],
            Synthesis(crop=self.stage.crop),
            self.stage.batch_size,
            self.seed,
            start=self.trainer.global_step,
        )
        return DataLoader(samples, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.data["validation"], batch_size=1)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        alpha, refined = self.network(batch["image"], batch["trimap"])
        terms = matting_losses(alpha, refined, batch, dict(self.stage.losses))
        self.log_dict({f"loss_{name}": value for name, value in terms.items()}, prog_bar=True)
        return sum(terms.values())

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        alpha = predict_alpha(self.network, batch["image"], batch["trimap"])
        difference = alpha.float() - batch["alpha"].float()
        self.log("SAD", difference.abs().sum() / 255 / 1000, prog_bar=True, batch_size=1)

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
