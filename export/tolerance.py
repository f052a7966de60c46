"""How close an exported model must be to the PyTorch reference, and why just so close.

All figures are taken on uint8 alphas at sizes and batches other than the traced ones.

fp32: metrics 0.1 %, mean alpha 5e-4. Kernels add in other orders. Seven or fewer of a million
    pooling windows fall the other way in a near-tie; the alpha around them moves by up to 0.1, the
    mean by 1.6e-4 at most.
fp16: metrics 1 %, mean alpha 5e-3. Up to 0.5 % of the windows fall the other way. The mean may
    move, the quality may not.
bf16: of an FP32 graph that OpenVINO computes in bf16, 8 bits of a number instead of 11: no metric
    worse by more than 1 %, mean alpha 5e-3. That one is better, by chance of the rounding, is no
    complaint: of the project's pictures MSE moves by -0.6 to +2.6 %, in the mean by +0.4 %, and by
    +0.99 % with the smallest's mirror images, as in an export: there is little room left.
winograd: of an FP32 graph that MNN computes with fewer products, whose sums are less exact: as for
    bf16, but closer, metrics 0.5 %, mean alpha 1e-3. Of 37 pictures no mean moves by more than
    0.012 %, of the project's three GRAD's by -0.20 %; of twelve composites on pure white, where
    most windows are ties, alpha's by 1.3e-4 at most.
int8: no metric worse by more than 2 %, for it is chosen for its speed; mean alpha 5e-3.

By how much the default weights move is in `benchmarks/results/parity.json`.

The largest difference of one pixel is reported and judges nothing: one near-tie decides it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Largest relative change of each metric, and largest mean |difference| of alpha in 0..1.

    With `may_improve` only a change for the worse counts: metrics are errors, the more the worse.
    """

    metric: float
    mean_alpha: float
    may_improve: bool = False


TOLERANCES = {
    "fp32": Tolerance(metric=0.001, mean_alpha=5e-4),
    "fp16": Tolerance(metric=0.01, mean_alpha=5e-3),
    "bf16": Tolerance(metric=0.01, mean_alpha=5e-3, may_improve=True),
    "winograd": Tolerance(metric=0.005, mean_alpha=1e-3, may_improve=True),
    "int8": Tolerance(metric=0.02, mean_alpha=5e-3, may_improve=True),
}
