"""Work for threads, done in parallel, whose results come in the order of the work."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Generator[Result, None, None]:
    """Yield the result of each item, with at most `most` of them taken and not yet yielded.

    What has not been started when the first one fails, or the iterator is closed, never is.
    """
    left = iter(items)
    waiting: deque[Future[Result]] = deque()
    try:
        while True:
            waiting.extend(pool.submit(work, item) for item in islice(left, most - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
