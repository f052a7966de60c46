"""The timing and the statistics, on data whose answers are known."""

import itertools
import time

import numpy as np
import pytest

from benchmarks.measure import in_turns, machine, percentiles, stopwatch


def test_percentiles_of_known_samples() -> None:
    samples = list(np.random.default_rng(0).permutation(101).astype(float))
    assert percentiles(samples) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


@pytest.mark.parametrize(("count", "last"), [(1, "p50"), (10, "p90"), (20, "p95"), (100, "p99")])
def test_no_percentile_beyond_which_no_sample_can_lie(count: int, last: str) -> None:
    found = [name for name, value in percentiles([1.0] * count).items() if value is not None]
    assert found[-1] == last


def test_timers_run_in_turns_and_warm_up_does_not_count() -> None:
    calls = []

    def timer(name: str) -> dict[str, float]:
        calls.append(name)
        return {name: len(calls)}

    samples = in_turns([lambda: timer("a"), lambda: timer("b")], warmup=1, most=2)
    assert calls == ["a", "b", "a", "b", "b", "a"]  # each round starts with another
    assert samples == {"a": [3, 6], "b": [4, 5]}


def test_none_always_follows_the_same_and_the_orders_are_the_same_every_time() -> None:
    def order() -> list[str]:
        calls: list[str] = []
        timers = [lambda name=name: calls.append(name) or {name: 1.0} for name in "abcdefgh"]
        assert list(in_turns(timers, warmup=0, least=7, most=7)) == list("abcdefgh")
        return calls

    calls = order()
    assert calls == order()
    for name in "abcdefgh":
        before = [a for a, b in itertools.pairwise(calls) if b == name]
        assert max(before.count(other) for other in before) <= 3


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 2), (3600, 5)])
def test_rounds_end_with_the_time(seconds: float, rounds: int) -> None:
    samples = in_turns([lambda: {"a": 1, "b": 2}], least=2, most=5, seconds=seconds)
    assert samples == {"a": [1] * rounds, "b": [2] * rounds}


def test_stopwatch_measures_milliseconds() -> None:
    waited = stopwatch("sleep", lambda: time.sleep(0.05))()
    assert waited["sleep"] >= 50


def test_machine_names_what_runs() -> None:
    found = machine()
    assert found["packages"]["numpy"] == np.__version__
    assert found["cores"] >= 1
    assert found["cpu"]


@pytest.mark.parametrize("field", ["flags", "Features"])  # x86, Arm
def test_instructions_are_those_that_matter(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "export.processor.cpu_field", lambda name: "fpu avx2 sse" if name == field else ""
    )
    assert machine()["instructions"] == ["avx2"]
