"""Work in threads whose results keep its order, however long each piece takes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.in_order import in_order


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_results_come_in_the_order_of_the_work(pool):
    def work(number):
        time.sleep(0.002 * (number % 5 == 0))  # every fifth is overtaken
        return -number

    assert list(in_order(pool, work, range(50), 8)) == [-number for number in range(50)]


@pytest.mark.parametrize("most", [1, 3, 9])
def test_no_more_is_taken_than_may_wait(pool, most):
    taken = 0

    def items():
        nonlocal taken
        for number in range(20):
            taken = number + 1
            yield number

    for done, _ in enumerate(in_order(pool, lambda item: item, items(), most)):
        assert taken == min(done + most, 20)


@pytest.mark.parametrize("end", ["failure", "closed"])
def test_what_is_not_started_at_the_end_never_is(end):
    started, gate = [], threading.Event()

    def work(number):
        started.append(number)
        time.sleep(0.1 * (number > 2))
        if number == 2:
            gate.wait(10)
            if end == "failure":
                raise ValueError("no such number")
        return number

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(100), 10)
        assert [next(results), next(results)] == [0, 1]
        if end == "failure":
            gate.set()
            with pytest.raises(ValueError, match="no such number"):
                next(results)
        results.close()
        gate.set()
    # The one thread may have begun the next before it was told.
    assert started in ([0, 1, 2], [0, 1, 2, 3])
