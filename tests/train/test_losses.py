"""Losses, their gradients and optimiser steps are mmediting's."""

import json

import pytest
import torch
from torch import nn

from train.losses import alpha_loss, composition_loss, matting_losses
from train.stages import stage

LOSS_NAMES = {"alpha": "loss_alpha", "composition": "loss_comp", "refined": "loss_refine"}
MMEDITING_RATE = 1e-5


@pytest.fixture(scope="module")
def arrays(oracle):
    return json.loads((oracle / "losses/losses.json").read_text())


@pytest.mark.parametrize("weight", ["none", "unknown", "zero"])
@pytest.mark.parametrize("kind", ["CharbonnierLoss", "CharbonnierCompLoss"])
def test_losses_and_gradients_on_small_arrays(arrays, kind, weight):
    given = {name: torch.tensor(value) for name, value in arrays["inputs"].items()}
    alpha = given["pred"].requires_grad_()
    unknown = {
        "none": torch.ones_like(alpha),
        "unknown": given["weight"],
        "zero": torch.zeros_like(alpha),
    }[weight]
    if kind == "CharbonnierLoss":
        loss = alpha_loss(alpha, given["alpha"], unknown)
    else:
        loss = composition_loss(alpha, given["fg"], given["bg"], given["ori_merged"], unknown)
    loss.backward()
    (expected,) = (r for r in arrays["results"] if (r["type"], r["weight"]) == (kind, weight))
    assert loss.item() == pytest.approx(expected["value"], rel=1e-6)
    torch.testing.assert_close(alpha.grad, torch.tensor(expected["grad"]), rtol=1e-5, atol=1e-8)


def test_squared_errors_of_the_unknown_region():
    alpha, truth = torch.tensor([0.5, 0.0, 1.0, 0.2]), torch.tensor([0.0, 0.0, 0.0, 0.6])
    batch = {"alpha": truth.view(1, 1, 2, 2), "unknown": torch.tensor([[[[1.0, 1], [0, 1]]]])}
    alpha = alpha.view(1, 1, 2, 2)
    weights = {"alpha_squared": 3.0, "refined_squared": 6.0}
    terms = matting_losses(alpha, alpha / 2, batch, weights)
    assert terms["alpha_squared"].item() == pytest.approx(3 * (0.25 + 0 + 0.16) / 3)
    assert terms["refined_squared"].item() == pytest.approx(6 * (0.0625 + 0 + 0.25) / 3)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_squared_errors_count_twice_as_much_as_errors_and_in_stage_3_alone(number):
    weights = dict(stage(number).losses)
    squared = {name: weights[name] for name in weights.keys() - LOSS_NAMES}
    twice = {f"{name}_squared": 2 * weights[name] for name in ("alpha", "refined") if number == 3}
    assert squared == twice


@pytest.fixture(scope="module")
def expected(oracle):
    return json.loads((oracle / "train/train.json").read_text())


def test_unknown_region_of_the_batch(batch, expected):
    assert batch["unknown"].sum() == expected["unknown pixels"]


# Later steps where they are cheap: stage 2 leaves the backbone as it is.
@pytest.mark.parametrize(("number", "steps"), [(1, 1), (2, 2), (3, 1)])
def test_adam_steps_on_the_batch(oracle_network, batch, expected, number, steps):
    """The losses of each step, and every parameter's gradient norm before the first."""
    from train.module import Training  # Lightning takes long, and other workers need not load it

    settings = stage(number)
    training = Training(oracle_network(1 if number == 1 else 3), settings, {}, seed=0, facts={})
    optimizer = training.configure_optimizers()["optimizer"]
    optimizer.param_groups[0]["lr"] = MMEDITING_RATE
    expected = expected[f"stage{number}"]
    weights = {name: weight for name, weight in settings.losses if name in LOSS_NAMES}
    for step in range(steps):
        optimizer.zero_grad()
        alpha, refined = training.network(batch["image"], batch["trimap"])
        terms = matting_losses(alpha, refined, batch, weights)
        sum(terms.values()).backward()
        losses = {LOSS_NAMES[name]: value.item() for name, value in terms.items()}
        losses["loss"] = sum(losses.values())
        assert losses == pytest.approx(expected["losses"][step], rel=1e-4)
        if step == 0:
            assert_gradient_norms(training.network, expected["gradient norms"])
        optimizer.step()


def assert_gradient_norms(network: nn.Module, expected: dict[str, float | None]) -> None:
    """None is a frozen parameter's."""
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    frozen = {name for name, gradient in gradients.items() if gradient is None}
    assert frozen == {name for name, norm in expected.items() if norm is None}
    norms = {name: gradients[name].norm().item() for name in gradients.keys() - frozen}
    assert norms == pytest.approx({name: expected[name] for name in norms}, rel=1e-2)
