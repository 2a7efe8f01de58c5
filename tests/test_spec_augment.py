import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meljax.config import MaskConfig
from meljax.features.spec_augment import draws_needed, fill_bands, random_bands

pytestmark = pytest.mark.accelerator

ONLY_TIME = MaskConfig(freq_count=0, time_width=0.25)


@functools.partial(jax.jit, static_argnames="config")
def mask_image(key, image, config: MaskConfig):
    bits = jax.random.bits(key, draws_needed(config))
    return fill_bands(image, *random_bands(bits, *image.shape[:2], config), config.fill)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def many_masks(config: MaskConfig, height: int, width: int, draws: int, seed: int):
    """Returns white images of one channel with different masks, [draws, height, width]."""
    image = jnp.ones((height, width, 1))
    keys = jax.random.split(jax.random.key(seed), draws)
    return jax.vmap(lambda key: mask_image(key, image, config))(keys)[..., 0]


def bands(config: MaskConfig, size: int, draws: int) -> np.ndarray:
    """Returns the columns that each of many time masks covers, [draws, size]."""
    return np.asarray(many_masks(config, 1, size, draws, 0))[:, 0] == config.fill


def test_width_and_start_are_independent():
    covered = bands(ONLY_TIME, 64, 10_000)
    covered = covered[covered.any(1)]
    width = covered.sum(1)
    # The range of the start depends on the width; its position in that range must not.
    share = covered.argmax(1) / (64 - width)
    assert abs(np.corrcoef(width, share)[0, 1]) < 0.03


def test_widths_are_uniform_up_to_the_maximum():
    widths = bands(ONLY_TIME, 64, 10_000).sum(1)
    counts = np.bincount(widths, minlength=17)
    assert len(counts) == 17, "a quarter of 64 columns at the most"
    assert np.abs(counts - 10_000 / 17).max() < 5 * np.sqrt(10_000 / 17)


def test_masks_are_one_band_and_reach_both_ends():
    covered = bands(ONLY_TIME, 64, 10_000)
    edges = np.abs(np.diff(covered.astype(int), axis=1, prepend=0, append=0)).sum(1)
    assert set(edges) == {0, 2}
    assert covered[:, 0].any()
    assert covered[:, -1].any()


def test_each_band_is_masked():
    masked = many_masks(MaskConfig(freq_count=0, time_count=2, time_width=0.25), 1, 64, 1000, 0)
    covered = np.asarray(masked)[:, 0] == 0
    edges = np.abs(np.diff(covered.astype(int), axis=1, prepend=0, append=0)).sum(1)
    assert set(edges) == {0, 2, 4}


def test_only_masked_values_change_to_the_fill():
    config = MaskConfig(freq_count=2, time_count=2, fill=0.7)
    image = np.random.default_rng(0).random((40, 50, 3), np.float32)
    masked = np.asarray(mask_image(jax.random.key(3), image, config))
    changed = (masked != image).all(-1)
    np.testing.assert_array_equal(masked[changed], np.float32(0.7))
    np.testing.assert_array_equal(masked[~changed], image[~changed])
    rows, columns = changed.all(1), changed.all(0)
    np.testing.assert_array_equal(changed, rows[:, None] | columns[None])
    assert rows.any()
    assert columns.any()


def test_both_axes_are_masked_independently():
    masked = np.asarray(many_masks(MaskConfig(), 64, 64, 2000, 1))
    rows, columns = (masked == 0).all(2).sum(1), (masked == 0).all(1).sum(1)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.08


def test_no_masks_change_nothing():
    image = np.random.default_rng(0).random((8, 9, 1), np.float32)
    for off in ({"freq_count": 0, "time_count": 0}, {"freq_width": 0.0, "time_width": 0.0}):
        config = dataclasses.replace(MaskConfig(), **off)
        np.testing.assert_array_equal(mask_image(jax.random.key(0), image, config), image)


def test_the_widest_mask_can_cover_the_image():
    covered = bands(dataclasses.replace(ONLY_TIME, time_width=1.0), 4, 200)
    assert covered.all(1).any()
    assert (~covered).all(1).any()
