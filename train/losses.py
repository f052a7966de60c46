"""Losses of Deep Image Matting (Xu et al., CVPR 2017, section 4.1), as mmediting 0.16.1 has them.

`squared_loss` is ours. Every loss is a mean over the unknown region of the whole batch, so a sample
with a wide unknown band counts more than one with a narrow band. A batch without unknown pixels
gives 0.
"""

import torch
from torch import Tensor

CHARBONNIER_EPSILON = 1e-12
"""Inside the square root; keeps the gradient finite where prediction and truth agree."""


def charbonnier(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return a smooth absolute difference, elementwise."""
    return torch.sqrt((prediction - truth) ** 2 + CHARBONNIER_EPSILON)


def mean_where(value: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of `value` N×C×H×W over the pixels where `weight` N×1×H×W is one."""
    weight = weight.expand_as(value)
    return (value * weight).sum() / (weight.sum() + 1e-12)


def alpha_loss(alpha: Tensor, truth: Tensor, unknown: Tensor) -> Tensor:
    """Return the alpha-prediction loss; all N×1×H×W in 0..1, `unknown` 0 or 1."""
    return mean_where(charbonnier(alpha, truth), unknown)


def squared_loss(alpha: Tensor, truth: Tensor, unknown: Tensor) -> Tensor:
    """Return the mean squared error; all N×1×H×W in 0..1, `unknown` 0 or 1."""
    return mean_where((alpha - truth) ** 2, unknown)


def composition_loss(
    alpha: Tensor, foreground: Tensor, background: Tensor, composite: Tensor, unknown: Tensor
) -> Tensor:
    """Return the difference between the predicted composite and the true one; N×3×H×W in 0..1."""
    predicted = alpha * foreground + (1 - alpha) * background
    return mean_where(charbonnier(predicted, composite), unknown)


def matting_losses(
    alpha: Tensor, refined: Tensor | None, batch: dict[str, Tensor], weights: dict[str, float]
) -> dict[str, Tensor]:
    """Return the weighted terms of one training step; their sum is what is minimised.

    Parameters
    ----------
    alpha, refined : N×1×H×W float in 0..1
        The network's two outputs; `refined` is None without a refiner.
    batch : dict
        `alpha`, `unknown` N×1×H×W; `foreground`, `background`, `composite` N×3×H×W in 0..1.
    weights : dict
        Weight of the terms `alpha`, `composition`, `refined`, `alpha_squared` and
        `refined_squared`; a term without one is left out.
    """
    truth, unknown = batch["alpha"], batch["unknown"]
    terms = {}
    if "alpha" in weights:
        terms["alpha"] = alpha_loss(alpha, truth, unknown)
    if "composition" in weights:
        colours = (batch["foreground"], batch["background"], batch["composite"])
        terms["composition"] = composition_loss(alpha, *colours, unknown)
    if "refined" in weights:
        terms["refined"] = alpha_loss(refined, truth, unknown)
    if "alpha_squared" in weights:
        terms["alpha_squared"] = squared_loss(alpha, truth, unknown)
    if "refined_squared" in weights:
        terms["refined_squared"] = squared_loss(refined, truth, unknown)
    return {name: weights[name] * term for name, term in terms.items()}
