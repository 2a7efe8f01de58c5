"""Frequency and time masks on one image (SpecAugment); the caller maps over the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from meljax.config import MaskConfig


def mask_image(
    key: Key[Array, ""], image: Float[Array, "height width channel"], config: MaskConfig
) -> Float[Array, "height width channel"]:
    """Returns `image` with random bands of rows and of columns set to `config.fill`.

    As in SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779), without time warping.
    Maximum widths are shares of the axis, rounded down to whole rows or columns.
    """
    freq_key, time_key = jax.random.split(key)
    height, width, _ = image.shape
    rows = _bands(freq_key, height, config.freq_count, int(config.freq_width * height))
    columns = _bands(time_key, width, config.time_count, int(config.time_width * width))
    masked = rows[:, None, None] | columns[None, :, None]
    return jnp.where(masked, jnp.float32(config.fill), image)


def _bands(key: Key[Array, ""], size: int, count: int, max_width: int) -> Bool[Array, " size"]:
    """Returns where `count` bands are: widths uniform in 0…`max_width`, starts uniform."""
    # Drawn from one key, width and start would be correlated.
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, (count, 1), 0, max_width + 1)
    start = jax.random.randint(start_key, (count, 1), 0, size - width + 1)
    place = jnp.arange(size)[None]
    return ((start <= place) & (place < start + width)).any(0)
