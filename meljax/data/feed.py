"""Sets that live on the device, the order in which they are read, and windows cut from them."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, Shaped, UInt8

from meljax import windows
from meljax.errors import UserError

PADDING = -1
"""Stands in an order for 'no item': such a row of a batch counts for nothing."""


@flax.struct.dataclass
class DeviceSet:
    """Items of differing length end to end along the time axis; a pytree.

    Attributes:
      buffer: samples, int16 [time], or columns of pictures, uint8 [time, height, channel]; at both
        ends lies a margin.
      offset: where in `buffer` each item begins, int32 [items].
      length: length of each item, int32 [items].
      label: class of each item, int32 [items].
      floor: what each item is padded with where it is shorter than the window: [items], or
        [items, channel].
    """

    buffer: Any  # while a pytree is mapped, anything may stand for an array
    offset: Any
    length: Any
    label: Any
    floor: Any

    def __len__(self) -> int:
        return len(self.offset)


def make_device_set(
    items: Sequence[Shaped[np.ndarray, "_ ..."]],
    floors: Sequence[UInt8[np.ndarray, " channel"]] | None,
    labels: Int[np.ndarray, " items"],
    window: int,
    sharding: jax.sharding.Sharding,
) -> DeviceSet:
    """Places items of the same kind on the device.

    Args:
      items: int16 [samples] or uint8 [columns, height, channel] each.
      floors: colour of silence of each picture; `None` for sound, whose silence is 0.
      labels: class of each item.
      window: the longest that is going to be cut.
      sharding: how the set lies on the devices.

    Raises:
      UserError: the set is too large to be indexed.
    """
    length = np.array([len(item) for item in items], np.int32)
    offset = window + np.concatenate([[0], np.cumsum(length[:-1], dtype=np.int64)])
    size = offset[-1] + length[-1] + window
    if size >= 2**31:
        raise UserError(
            f"the set is too large: {size:,} samples or columns in "
            "all, and at most 2,147,483,647 can lie on a device"
        )
    floor = np.zeros(len(items), np.int16) if floors is None else np.stack(floors)
    margin = np.zeros((window, *items[0].shape[1:]), items[0].dtype)
    arrays = {
        "buffer": np.concatenate([margin, *items, margin]),
        "offset": offset.astype(np.int32),
        "length": length,
        "label": labels.astype(np.int32),
        "floor": floor,
    }
    return DeviceSet(**jax.device_put(arrays, sharding))


@functools.partial(jax.jit, static_argnames=("items", "batch_size", "devices"))
def epoch_order(
    key: Key[Array, ""], items: int, batch_size: int, devices: int
) -> Int[Array, "steps padded_batch"]:
    """Returns a random order of all items, a row per step; the last row may be short.

    Rows are padded with `PADDING` to a multiple of `devices`.
    """
    counts = row_counts(items, batch_size)
    batch_size, width = counts[0], -(-counts[0] // devices) * devices
    order = jax.random.permutation(key, items).astype(jnp.int32)
    rows = jnp.pad(order, (0, len(counts) * batch_size - items), constant_values=PADDING)
    rows = rows.reshape(len(counts), batch_size)
    return jnp.pad(rows, ((0, 0), (0, width - batch_size)), constant_values=PADDING)


def row_counts(items: int, batch_size: int) -> list[int]:
    """Returns how many items each row of an epoch's order holds."""
    return [min(batch_size, items - first) for first in range(0, items, batch_size)]


def steps_per_epoch(items: int, batch_size: int) -> int:
    """Returns how many batches hold `items` once; the last may be short."""
    return -(-items // batch_size)


class WindowOrder(NamedTuple):
    """The order in which the windows of a set are scored, in rows of one width.

    Attributes:
      item: which item each window belongs to; `PADDING` where there is no window.
      start: where in its item it begins.
    """

    item: Int[Array, "rows batch"]
    start: Int[Array, "rows batch"]


def window_order(lengths: Int[np.ndarray, " items"], window: int, batch: int) -> WindowOrder:
    """Returns the windows of items as long as `lengths`, item by item, in NumPy arrays."""
    starts = [windows.starts(int(length), window) for length in lengths]
    item = np.repeat(np.arange(len(starts)), [len(each) for each in starts])
    rows = -(-len(item) // batch)
    padding = (0, rows * batch - len(item))
    return WindowOrder(
        item=np.pad(item, padding, constant_values=PADDING).astype(np.int32).reshape(rows, batch),
        start=np.pad(np.concatenate(starts), padding).astype(np.int32).reshape(rows, batch),
    )


def random_start(key: Key[Array, ""], length: Int[Array, ""], window: int) -> Int[Array, ""]:
    """Returns a random place of the window in an item; negative: silence comes before it."""
    spare = length - window
    return jax.random.randint(key, (), jnp.minimum(spare, 0), jnp.maximum(spare, 0) + 1)


def cut(
    data: DeviceSet, index: Int[Array, " batch"], start: Int[Array, " batch"], window: int
) -> Shaped[Array, "batch window ..."]:
    """Returns a window of each of the items `index`; outside the item lies its floor."""
    begin = data.offset[index] + start
    # One piece each, not one value after the other: a tenth of the time on a CPU.
    values = jax.vmap(lambda first: jax.lax.dynamic_slice_in_dim(data.buffer, first, window))(begin)
    place = start[:, None] + jnp.arange(window)[None]
    inside = (place >= 0) & (place < data.length[index][:, None])
    floor = data.floor[index]
    if values.ndim == 2:
        return jnp.where(inside, values, floor[:, None])
    return jnp.where(inside[:, :, None, None], values, floor[:, None, None, :])
