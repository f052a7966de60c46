"""By how much an export may differ from the network, and to which side."""

import pytest

from export.parity import Comparison, judge


@pytest.mark.parametrize(
    ("precision", "change", "is_fine"),
    [
        ("fp32", 0.0009, True),
        ("fp32", -0.0009, True),
        ("fp32", 0.0011, False),
        ("fp32", -0.0011, False),
        ("fp16", 0.009, True),
        ("fp16", -0.011, False),
        ("bf16", 0.009, True),
        ("bf16", 0.011, False),
        ("bf16", -0.05, True),
        ("int8", 0.019, True),
        ("int8", 0.021, False),
        ("int8", -0.05, True),
    ],
)
def test_metrics_may_be_better_by_chance_in_few_bits_but_not_worse(
    precision: str, change: float, is_fine: bool
) -> None:
    reference = {"SAD": 2.0, "MSE": 0.02}
    exported = reference | {"MSE": 0.02 * (1 + change)}
    complaints = judge(
        [Comparison("a", reference, exported, 1e-4, 1e-3, 0.5)], precision
    ).complaints
    assert bool(complaints) != is_fine
    assert all(words.startswith("MSE is") for words in complaints)
