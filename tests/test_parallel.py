import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meljax.util.parallel import map_ahead


def test_results_are_in_order_and_few_are_computed_ahead():
    taken, lock = [], threading.Lock()

    def items():
        for i in range(100):
            with lock:
                taken.append(i)
            yield i

    results = map_ahead(lambda i: time.sleep(0.001 * (i % 3)) or i, items(), workers=3, ahead=4)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) == 10 + 4
    assert list(results) == list(range(10, 100))


def test_an_error_is_raised_in_place_of_its_result_and_ends_the_threads():
    before = threading.active_count()

    def fail(i):
        if i == 3:
            raise ZeroDivisionError
        return i

    results = map_ahead(fail, range(50), workers=2, ahead=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == before


def test_a_consumer_that_stops_ends_the_threads():
    before = threading.active_count()
    results = map_ahead(abs, range(50), workers=2, ahead=5)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_a_consumer_that_stops_leaves_waiting_items_undone(monkeypatch):
    done, stopping, shutdown = [], threading.Event(), ThreadPoolExecutor.shutdown

    def do(i):
        if i == 1:
            assert stopping.wait(60)
        done.append(i)

    def shutdown_in_two_steps(pool, **arguments):
        shutdown(pool, **{**arguments, "wait": False})
        stopping.set()
        shutdown(pool)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown_in_two_steps)
    results = map_ahead(do, range(50), workers=1, ahead=5)
    next(results)
    results.close()
    assert done in ([0], [0, 1])
