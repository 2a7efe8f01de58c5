"""Random numbers of the items of a batch: where windows start, and what is masked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import make_data, make_task

from meljax.config import MaskConfig
from meljax.features.random_integers import integers_below
from meljax.training.augmentation import Draws, draw, train_images

pytestmark = pytest.mark.accelerator

MASK = MaskConfig(freq_count=2, freq_width=0.5, time_count=1, time_width=0.5)


@functools.partial(jax.jit, static_argnames="items")
def draws(items: int, seed: int = 0) -> Draws:
    """Returns the random numbers of `items` recordings.

    Windows start at 0 to 10; rows are 0 to 10 wide, so shared random bits would be noticed.
    """
    return draw(make_task(mask=MASK), jnp.full(items, 1610), jax.random.key(seed))


def test_the_numbers_of_an_item_do_not_depend_on_the_size_of_the_batch():
    """A batch is padded to a multiple of the number of devices."""
    few, more = draws(8), draws(12)
    for one, other in zip(jax.tree.leaves(few), jax.tree.leaves(more), strict=True):
        np.testing.assert_array_equal(one, other[:8])
    assert not np.array_equal(few.start, draws(8, seed=1).start)


def test_all_numbers_are_uncorrelated():
    found = draws(10_000)
    series = [np.asarray(found.start)]
    for bands in (found.rows, found.columns):
        widths, starts = np.asarray(bands.width).T, np.asarray(bands.start).T
        size = (widths + starts).max()
        # The range of a start depends on the width; its position in that range must not.
        series += [*widths, *(starts / (size - widths))]
    assert len(series) == 7
    correlation = np.corrcoef(series) - np.eye(7)
    assert np.abs(correlation).max() < 0.05
    next_item = [np.corrcoef(each[:-1], each[1:])[0, 1] for each in series]
    assert np.abs(next_item).max() < 0.05


def test_numbers_fill_their_ranges():
    """The image has 20 rows and 13 columns."""
    mask = MaskConfig(freq_count=2, freq_width=0.35, time_count=1, time_width=0.6)
    task = make_task(mask=mask)
    found = jax.jit(draw, static_argnums=0)(task, jnp.full(10_000, 1610), jax.random.key(0))
    assert (found.start.min(), found.start.max()) == (0, 10)
    for bands, size in ((found.rows, 20), (found.columns, 13)):
        assert (bands.width.min(), bands.width.max()) == (0, 7)
        assert (bands.start.min(), (bands.start + bands.width).max()) == (0, size)
    found = jax.jit(draw, static_argnums=0)(task, jnp.full(10_000, 10**7), jax.random.key(0))
    assert found.start.max() > 0.99 * 10**7


def test_bands_of_rows_are_filled_in_rows():
    task = make_task(mask=MaskConfig(freq_count=2, time_count=0, fill=0.7))
    data, index = make_data(task), jnp.arange(8)
    make = jax.jit(train_images, static_argnums=0)
    clean, masked = map(np.asarray, make(task, data, index, jax.random.key(0)))
    changed = (clean != masked).any(-1)
    assert 0 < changed.mean() < 0.9
    assert (masked[changed.any(2)] == np.float32(0.7)).all()


def test_integers_are_remainders_also_of_the_largest_bits():
    bits = jnp.array([0, 1, 2**31, 2**32 - 1], jnp.uint32)
    for limit in (1, 2, 1000, 2**31 - 1):
        found = np.asarray(integers_below(bits, limit))
        np.testing.assert_array_equal(found, np.asarray(bits) % np.uint32(limit))
        assert found.dtype == np.int32
