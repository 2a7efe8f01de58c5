"""Images for training: random windows of items, with random masks."""

import functools
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, Key

from meljax.data.batches import DeviceSet
from meljax.features.frontend import to_images
from meljax.features.spec_augment import Bands, draws_needed, fill_bands, random_bands
from meljax.features.windows import random_starts
from meljax.training.state import Task, image_shape

Images = Float[Array, "batch rows columns channel"]


class Draws(NamedTuple):
    """Random numbers for the images of a batch.

    Attributes:
      start: start of each window in its item, in samples or columns, int32 [batch]; not positive
        if the item is shorter than the window.
      rows: bands of rows to mask, int32 [batch, count].
      columns: bands of columns to mask, int32 [batch, count].
    """

    start: Int[Array, " batch"]
    rows: Bands
    columns: Bands


def draw(task: Task, length: Int[Array, " batch"], key: Key[Array, ""]) -> Draws:
    """Returns the random numbers for a batch of items of `length` samples or columns.

    The random bits of an item depend only on `key`, its position in the batch and the number of
    masks. They do not depend on the size of the batch (with `jax_threefry_partitionable`, JAX's
    default), so padding for more devices changes nothing.
    """
    # A single call: on a CPU each call of jax.random is a loop of about ten kernels to compile.
    bits = jax.random.bits(key, (len(length), 1 + draws_needed(task.mask)), "uint32")
    height, width, _ = image_shape(task.frontend)
    start = random_starts(bits[:, 0], length, task.frontend.window)
    return Draws(start, *random_bands(bits[:, 1:], height, width, task.mask))


def augment(
    task: Task, data: DeviceSet, index: Int[Array, " batch"], draws: Draws
) -> tuple[Images, Images]:
    """Returns images of windows of the items `index`, before and after masking.

    `index` must not contain `PADDING`.
    """
    clean = to_images(task.frontend, data.windows(index, draws.start, task.frontend.window))
    fill = functools.partial(fill_bands, fill=task.mask.fill)
    return clean, jax.vmap(fill)(clean, draws.rows, draws.columns)


def train_images(
    task: Task, data: DeviceSet, index: Int[Array, " batch"], key: Key[Array, ""]
) -> tuple[Images, Images]:
    """Returns images of random windows of the items `index`, before and after masking.

    `index` must not contain `PADDING`.
    """
    return augment(task, data, index, draw(task, data.length[index], key))
