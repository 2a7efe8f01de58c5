import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meljax.data import feed
from meljax.errors import UserError

SHARDING = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])


def sound_set() -> tuple[feed.DeviceSet, list[np.ndarray]]:
    items = [np.arange(1, n + 1, dtype=np.int16) + 100 * n for n in (7, 3, 5)]
    return feed.make_device_set(items, None, np.array([0, 1, 1]), 6, SHARDING), items


@pytest.mark.parametrize(
    ("items", "batch", "devices"), [(10, 4, 1), (12, 4, 1), (5, 7, 4), (9, 2, 4)]
)
def test_an_epoch_takes_every_item_once(items, batch, devices):
    order = feed.epoch_order(jax.random.key(0), items, batch, devices)
    assert order.shape[0] == -(-items // batch)
    assert order.shape[1] % devices == 0
    assert sorted(order[order != feed.PADDING]) == list(range(items))
    assert ((order != feed.PADDING).sum(1)[:-1] == batch).all()


def test_epochs_differ_in_order():
    one, two = (feed.epoch_order(jax.random.key(seed), 50, 8, 1) for seed in (1, 2))
    assert (one != two).any()


def test_a_window_is_a_piece_of_the_item():
    data, items = sound_set()
    out = feed.cut(data, jnp.array([0, 2]), jnp.array([2, 1]), 4)
    np.testing.assert_array_equal(out[0], items[0][2:6])
    np.testing.assert_array_equal(out[1], items[2][1:5])


def test_beyond_an_item_there_is_silence_and_never_its_neighbour():
    data, items = sound_set()
    out = feed.cut(data, jnp.array([1, 1]), jnp.array([0, -2]), 6)
    np.testing.assert_array_equal(out[0], [*items[1], 0, 0, 0])
    np.testing.assert_array_equal(out[1], [0, 0, *items[1], 0])


def test_windows_may_reach_beyond_the_first_and_the_last_item():
    data, items = sound_set()
    out = feed.cut(data, jnp.array([0, 2, 2]), jnp.array([-5, 4, -1]), 6)
    np.testing.assert_array_equal(out[0], [0] * 5 + [items[0][0]])
    np.testing.assert_array_equal(out[1], [items[2][4]] + [0] * 5)
    np.testing.assert_array_equal(out[2], [0, *items[2]])


def test_pictures_are_padded_with_their_floor():
    items = [np.full((n, 3, 2), n, np.uint8) for n in (2, 4)]
    floors = [np.array([9, 8], np.uint8), np.array([7, 6], np.uint8)]
    data = feed.make_device_set(items, floors, np.array([0, 1]), 4, SHARDING)
    out = np.asarray(feed.cut(data, jnp.array([0]), jnp.array([-1]), 4))
    np.testing.assert_array_equal(out[0, [0, 3]], np.broadcast_to([9, 8], (2, 3, 2)))
    np.testing.assert_array_equal(out[0, 1:3], items[0])


@pytest.mark.parametrize("length", [3, 6, 10])
def test_random_windows_reach_every_place_and_no_other(length):
    keys = jax.random.split(jax.random.key(0), 500)
    starts = jax.vmap(lambda k: feed.random_start(k, jnp.int32(length), 6))(keys)
    spare = length - 6
    assert set(np.asarray(starts)) == set(range(min(spare, 0), max(spare, 0) + 1))


def test_a_set_that_cannot_be_indexed_is_refused():
    # Broadcast, so that it need not exist.
    long = np.broadcast_to(np.int16(0), 2**30)
    with pytest.raises(UserError, match="too large"):
        feed.make_device_set([long, long], None, np.array([0, 1]), 4, SHARDING)


def test_the_windows_of_a_set_stand_item_by_item_in_whole_rows():
    order = feed.window_order(np.array([6, 12, 3]), window=6, batch=4)
    np.testing.assert_array_equal(order.item, [[0, 1, 1, 1], [2, -1, -1, -1]])
    np.testing.assert_array_equal(order.start, [[0, 0, 3, 6], [-2, 0, 0, 0]])
