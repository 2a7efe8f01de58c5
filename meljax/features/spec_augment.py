"""Frequency and time masks on one image (SpecAugment); the caller maps over the batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from meljax.config import MaskConfig


class Bands(NamedTuple):
    """Bands of adjacent rows or columns, int32 [count]; a band of width 0 is empty."""

    start: Int[Array, "*batch count"]
    width: Int[Array, "*batch count"]


def random_bands(
    key: Key[Array, ""], height: int, width: int, config: MaskConfig
) -> tuple[Bands, Bands]:
    """Returns random rows and columns to mask in an image of `height` × `width` pixels.

    As in SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779), without time warping.
    Maximum widths are shares of the axis, rounded down to whole rows or columns.
    """
    freq_key, time_key = jax.random.split(key)
    rows = _random_bands(freq_key, height, config.freq_count, int(config.freq_width * height))
    columns = _random_bands(time_key, width, config.time_count, int(config.time_width * width))
    return rows, columns


def _random_bands(key: Key[Array, ""], size: int, count: int, max_width: int) -> Bands:
    """Returns `count` bands on an axis: widths uniform in 0…`max_width`, starts uniform."""
    # Drawn from one key, width and start would be correlated.
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, (count,), 0, max_width + 1)
    return Bands(jax.random.randint(start_key, (count,), 0, size - width + 1), width)


def fill_bands(
    image: Float[Array, "height width channel"], rows: Bands, columns: Bands, fill: float
) -> Float[Array, "height width channel"]:
    """Returns `image` with the bands of rows and of columns set to `fill`."""
    height, width, _ = image.shape
    masked = _covered(rows, height)[:, None, None] | _covered(columns, width)[None, :, None]
    return jnp.where(masked, jnp.float32(fill), image)


def _covered(bands: Bands, size: int) -> Bool[Array, " size"]:
    """Returns which places of an axis are in a band."""
    place = jnp.arange(size)[None]
    start, width = bands.start[:, None], bands.width[:, None]
    return ((start <= place) & (place < start + width)).any(0)
