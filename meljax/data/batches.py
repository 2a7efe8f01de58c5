"""Places items on the devices, orders them by epoch, and cuts their windows."""

import functools
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, Shaped

from meljax.features.samples import to_float
from meljax.features.windows import cut, floor_color, scored_starts
from meljax.util.devices import jit
from meljax.util.errors import UserError

PADDING = -1
"""Index that marks padding in an order; the step ignores such rows of a batch."""


@flax.struct.dataclass
class DeviceSet:
    """Items of different lengths, end to end along the time axis; a pytree."""

    # Typed `Any`: JAX's tree functions also put other objects than arrays in a pytree.
    buffer: Any  # int16 or float32 [time], or uint8 [time, height, channel]; see `make_device_set`
    offset: Any  # start of each item in `buffer`, int32 [items]
    length: Any  # int32 [items]
    label: Any  # class of each item, int32 [items]
    floor: Any  # value that pads windows beyond the item, [items] or [items, channel]
    scored: Any  # item and start of each window that is scored, int32 [windows, 2]

    def __len__(self) -> int:
        return len(self.offset)

    def windows(
        self, index: Int[Array, " batch"], start: Int[Array, " batch"], window: int
    ) -> Shaped[Array, "batch window ..."]:
        """Returns one window of each item in `index`; see `features.windows.cut`."""
        offset, length, floor = self.offset[index], self.length[index], self.floor[index]
        return cut(self.buffer, offset, length, start, floor, window)


@functools.partial(jit, static_argnames="window")
def cut_windows(
    data: DeviceSet, index: Int[Array, " batch"], start: Int[Array, " batch"], window: int
) -> Shaped[Array, "batch window ..."]:
    """The compiled `DeviceSet.windows`."""
    return data.windows(index, start, window)


def make_device_set(
    items: Sequence[Shaped[np.ndarray, "_ ..."]],
    labels: Int[np.ndarray, " items"],
    window: int,
    sharding: jax.sharding.Sharding,
    skip_silence: bool = False,
) -> DeviceSet:
    """Places items of the same kind on the devices.

    The buffer holds them end to end, with one window of margin at both ends. It is float32 if one
    of the recordings is.

    Args:
      items: int16 or float32 [samples], or uint8 [columns, height, channel] each.
      window: maximum length of a window.
      skip_silence: as in `windows.scored_starts`.

    Raises:
      UserError: the set is too large for 32-bit indices.
    """
    length = np.array([len(item) for item in items], np.int32)
    offset = window + np.concatenate([[0], np.cumsum(length[:-1], dtype=np.int64)])
    size = offset[-1] + length[-1] + window
    if size >= 2**31:
        raise UserError(
            f"the set is too large: {size:,} samples or columns in all; "
            "at most 2,147,483,647 fit on a device"
        )
    images = items[0].ndim == 3  # silence is 0 in recordings, the darkest color in images
    places = [scored_starts(item, window, skip_silence) for item in items]
    owners = np.repeat(np.arange(len(items)), [len(each) for each in places])
    scored = np.stack([owners, np.concatenate(places)], axis=1).astype(np.int32)
    if any(item.dtype == np.float32 for item in items):
        items = [to_float(item) for item in items]
    floor = np.stack([floor_color(item) if images else items[0].dtype.type(0) for item in items])
    margin = np.zeros((window, *items[0].shape[1:]), items[0].dtype)
    buffer = np.concatenate([margin, *items, margin])
    arrays = (buffer, offset.astype(np.int32), length, labels.astype(np.int32), floor, scored)
    return jax.device_put(DeviceSet(*arrays), sharding)


def make_window_set(
    pieces: Sequence[tuple[Shaped[np.ndarray, "_ ..."], int]],
    batch: int,
    window: int,
    sharding: jax.sharding.Sharding,
) -> tuple[DeviceSet, Int[np.ndarray, "1 {batch}"]]:
    """Places single windows on the devices as a set of constant shape, so that nothing recompiles.

    Args:
      pieces: at most `batch` pairs of an item and the start of a window in it.
      batch: number of items of the set; items without a window are empty.

    Returns:
      The set, and the start of each window relative to its item in the set.
    """
    first = pieces[0][0]
    dtype = np.float32 if first.ndim == 1 else first.dtype
    buffer = np.zeros(((batch + 2) * window, *first.shape[1:]), dtype)
    offset = (window * (1 + np.arange(batch))).astype(np.int32)
    length, starts = np.zeros(batch, np.int32), np.zeros((1, batch), np.int32)
    floor = np.zeros((batch, *first.shape[2:]), dtype)
    for slot, (array, start) in enumerate(pieces):
        part = array[max(start, 0) : start + window]
        if array.ndim == 1:
            part = to_float(part)
        buffer[offset[slot] : offset[slot] + len(part)] = part
        length[slot], starts[0, slot] = len(part), min(start, 0)
        if array.ndim == 3 and len(part) < window:
            floor[slot] = floor_color(array)
    none = np.zeros((0, 2), np.int32)
    device_set = DeviceSet(buffer, offset, length, np.zeros(batch, np.int32), floor, none)
    return jax.device_put(device_set, sharding), starts


@functools.partial(jax.jit, static_argnames=("items", "batch_size", "devices"))
def epoch_order(
    key: Key[Array, ""], items: int, batch_size: int, devices: int
) -> Int[Array, "steps padded_batch"]:
    """Returns a random order of all items, one row per step.

    Rows are padded with `PADDING` to a multiple of `devices`. The last row may hold fewer items.
    """
    counts = row_counts(items, batch_size)
    batch_size, width = counts[0], -(-counts[0] // devices) * devices
    order = jax.random.permutation(key, items).astype(jnp.int32)
    rows = jnp.pad(order, (0, len(counts) * batch_size - items), constant_values=PADDING)
    rows = rows.reshape(len(counts), batch_size)
    return jnp.pad(rows, ((0, 0), (0, width - batch_size)), constant_values=PADDING)


def row_counts(items: int, batch_size: int) -> list[int]:
    """Returns the number of items in each row of an epoch's order."""
    return [min(batch_size, items - first) for first in range(0, items, batch_size)]


def steps_per_epoch(items: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch; the last one may be smaller."""
    return -(-items // batch_size)
