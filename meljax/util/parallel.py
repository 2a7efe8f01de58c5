"""Maps a function over items in threads, a bounded number ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int
) -> Iterator[R]:
    """Yields `function(item)` for each item, in order, computing up to `ahead` results in advance.

    Unlike `ThreadPoolExecutor.map` it takes items (in the caller's thread) only when they are
    needed, so memory stays bounded. `workers` threads call `function`, which should release
    Python's global lock.
    """
    waiting: deque = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
