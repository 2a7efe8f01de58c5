"""Frequency and time masks (SpecAugment), drawn for a batch and applied to single images."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from meljax.config import MaskConfig
from meljax.features.random_integers import integers_below


class Bands(NamedTuple):
    """Bands of adjacent rows or columns, int32 [*batch, count]; a band of width 0 is empty."""

    start: Int[Array, "*batch count"]
    width: Int[Array, "*batch count"]


def draws_needed(config: MaskConfig) -> int:
    """Returns how many random uint32 values `random_bands` uses for an image."""
    return 2 * (config.freq_count + config.time_count)


def random_bands(
    bits: UInt32[Array, "*batch draws"], height: int, width: int, config: MaskConfig
) -> tuple[Bands, Bands]:
    """Returns random rows and columns to mask in images of `height` × `width` pixels.

    As in SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779), without time warping.
    Maximum widths are shares of the axis, rounded down to whole rows or columns.

    Args:
      bits: independent random bits, `draws_needed(config)` values for each image.
    """
    for_rows, for_columns = jnp.split(bits, [2 * config.freq_count], axis=-1)
    rows = _random_bands(for_rows, height, int(config.freq_width * height))
    columns = _random_bands(for_columns, width, int(config.time_width * width))
    return rows, columns


def _random_bands(bits: UInt32[Array, "*batch draws"], size: int, max_width: int) -> Bands:
    """Returns bands on an axis of `size` places.

    The first half of `bits` gives widths, uniform in 0…`max_width`; the second half gives starts,
    uniform where the band fits.
    """
    for_width, for_start = jnp.split(bits, 2, axis=-1)
    width = integers_below(for_width, max_width + 1)
    return Bands(integers_below(for_start, size - width + 1), width)


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
