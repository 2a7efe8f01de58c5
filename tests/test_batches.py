"""Device sets, the order of an epoch, and windows cut on the device."""

import jax
import numpy as np
import pytest

from meljax.data import batches
from meljax.util.errors import UserError

SHARDING = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])


@pytest.mark.parametrize(
    ("items", "batch", "devices"), [(10, 4, 1), (12, 4, 1), (5, 7, 4), (9, 2, 4)]
)
def test_an_epoch_has_every_item_once(items, batch, devices):
    order = np.asarray(batches.epoch_order(jax.random.key(0), items, batch, devices))
    assert order.shape[0] == -(-items // batch)
    assert order.shape[1] % devices == 0
    assert sorted(order[order != batches.PADDING]) == list(range(items))
    assert ((order != batches.PADDING).sum(1)[:-1] == batch).all()


def test_epochs_differ_in_order():
    orders = (batches.epoch_order(jax.random.key(seed), 50, 8, 1) for seed in (1, 2))
    one, two = map(np.asarray, orders)
    assert (one != two).any()


def test_a_set_that_cannot_be_indexed_is_refused():
    # Broadcast, so that it need not exist.
    long = np.broadcast_to(np.int16(0), 2**30)
    with pytest.raises(UserError, match="too large"):
        batches.make_device_set([long, long], np.array([0, 1]), 4, SHARDING)


def test_single_windows_are_cut_as_from_whole_items():
    images = [
        np.random.default_rng(n).integers(9, 256, (n, 3, 2)).astype(np.uint8) for n in (5, 20, 8)
    ]
    recordings = [np.arange(1, n + 1, dtype=np.int16) for n in (5, 20, 8)]
    places = [(0, -2), (1, 0), (1, 12), (1, 7), (2, 0)]
    for items in (images, recordings):
        whole = batches.make_device_set(items, np.zeros(3, int), 8, SHARDING)
        pieces = [(items[index], start) for index, start in places]
        single, starts = batches.make_window_set(pieces, 7, 8, SHARDING)
        index, start = (np.array(each) for each in zip(*places, strict=True))
        cut = np.asarray(batches.cut_windows(single, np.arange(7), starts[0], 8))
        np.testing.assert_array_equal(cut[:5], batches.cut_windows(whole, index, start, 8))
