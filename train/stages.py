"""The three stages of training, and every number in them with its reason.

mmediting trains each stage for a million iterations of one 320x320 sample with Adam at a fixed
1e-5. The schedule here is short: batches, a rate five to twenty times higher that warms up and then
falls to zero on a cosine, and clipped gradients. Losses and their weights are mmediting's, but for
the squared errors of stage 3. No stage has been run to its full length yet.
"""

import json
import math
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Stage:
    """One stage: what is in the network, what learns, from which losses, and how long."""

    number: int
    refiner: bool = False
    freeze_backbone: bool = False
    losses: tuple[tuple[str, float], ...] = (("alpha", 0.5), ("composition", 0.5))
    # Adam. 1e-4 and 3e-4 learnt equally fast over the first 50 steps of 4 samples.
    learning_rate: float = 2e-4
    # Adam's first steps are as long as the rate says, however few gradients they are drawn from.
    warmup_steps: int = 50
    # Norms of 1 to 10 are usual at the start; without clipping single batches undo many.
    gradient_clip: float = 1.0
    # What is judged and kept is the moving average of the weights, over about 1 / (1 - it) steps,
    # but over no more than a ninth of those that were taken. As long as between two validations.
    averaging: float = 0.999
    # In batches of 16 that is 1.6 million samples; mmediting takes a million.
    steps: int = 100_000
    # What a run that is killed loses at most.
    validate_every: int = 1000
    # Gradients of single batches differ widely (docs/training.md): a high rate wants many samples.
    batch_size: int = 16
    # mmediting's.
    crop: int = 320


STAGES: dict[int, Stage] = {
    1: Stage(1),
    # Only the refiner's 77 thousand parameters learn, of 26 million: fewer steps.
    2: Stage(2, refiner=True, freeze_backbone=True, losses=(("refined", 1.0),), steps=20_000),
    3: Stage(
        3,
        refiner=True,
        losses=(
            ("alpha", 0.5),
            ("composition", 0.5),
            ("refined", 1.0),
            # Ours, for edges: each error's square counts twice as much as the error. What that does
            # is in docs/training.md.
            ("alpha_squared", 1.0),
            ("refined_squared", 2.0),
        ),
        # Everything is near its place: a quarter of the rate, half of the steps.
        learning_rate=5e-5,
        steps=50_000,
    ),
}


def stage(number: int, **changes: int | float | None) -> Stage:
    """Return a stage with the given fields changed; None leaves a field as it is.

    Steps become a whole number of validations, so that the last weights are judged too.
    """
    chosen = replace(STAGES[number], **{k: v for k, v in changes.items() if v is not None})
    every = min(chosen.validate_every, chosen.steps)
    return replace(chosen, validate_every=every, steps=math.ceil(chosen.steps / every) * every)


def run_facts(stage: Stage, seed: int, **more: str | int) -> dict:
    """Return what identifies a run, as JSON values: its seed, its stage's fields, and more."""
    return json.loads(json.dumps({"seed": seed, **asdict(stage), **more}))
