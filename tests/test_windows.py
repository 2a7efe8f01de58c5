import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from meljax import windows
from meljax.data import feed


@pytest.mark.parametrize(
    ("length", "expected"),
    [(3, [-2]), (6, [0]), (8, [1]), (9, [0, 3]), (11, [0, 5]), (12, [0, 3, 6]), (14, [0, 4, 8])],
)
def test_the_middle_up_to_a_window_and_a_half_then_from_end_to_end(length, expected):
    assert windows.starts(length, 6).tolist() == expected


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_windows_of_a_long_item_cover_it_without_a_gap(window):
    for length in range(-(-3 * window // 2) + 1, 5 * window + 3):
        starts = windows.starts(length, window)
        assert starts[0] == 0
        assert starts[-1] == length - window
        steps = np.diff(starts)
        assert (steps >= max(1, window // 2)).all()
        assert (steps <= window).all()


def test_the_host_cuts_what_the_device_cuts():
    rng = np.random.default_rng(0)
    place = SingleDeviceSharding(jax.devices()[0])
    sounds = [rng.integers(-9, 9, n).astype(np.int16) for n in (3, 20)]
    pictures = [rng.integers(0, 9, (n, 2, 3)).astype(np.uint8) for n in (3, 20)]
    floors = [np.array([7, 8, 9], np.uint8)] * 2
    labels = np.array([0, 1])
    for items, floor in ((sounds, None), (pictures, floors)):
        data = feed.make_device_set(items, floor, labels, 7, place)
        for item, start in ((0, -2), (0, -1), (1, 0), (1, 13)):
            there = feed.cut(data, jnp.array([item]), jnp.array([start]), 7)[0]
            here = windows.cut(items[item], start, 7, floor and floor[item])
            np.testing.assert_array_equal(here, there)
