"""Frequency and time masks on one picture; the caller maps over the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from meljax.config import MaskConfig


def mask_picture(
    key: Key[Array, ""], picture: Float[Array, "height width channel"], config: MaskConfig
) -> Float[Array, "height width channel"]:
    """Returns `picture` with random bands of frequencies and of times set to `config.fill`.

    The masks of SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779), without its time
    warping. A maximum width is a share of the axis, rounded down to whole rows or columns.
    """
    freq_key, time_key = jax.random.split(key)
    height, width, _ = picture.shape
    rows = _bands(freq_key, height, config.freq_count, int(config.freq_width * height))
    columns = _bands(time_key, width, config.time_count, int(config.time_width * width))
    masked = rows[:, None, None] | columns[None, :, None]
    return jnp.where(masked, jnp.float32(config.fill), picture)


def _bands(key: Key[Array, ""], size: int, count: int, most: int) -> Bool[Array, " size"]:
    """Marks `count` bands, each of a width uniform in 0…`most`, at a place uniform on the axis.

    Width and place are drawn from keys of their own: from one key they would move together.
    """
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, (count, 1), 0, most + 1)
    start = jax.random.randint(start_key, (count, 1), 0, size - width + 1)
    place = jnp.arange(size)[None]
    return ((start <= place) & (place < start + width)).any(0)
