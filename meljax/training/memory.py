"""Refuses a run that does not fit in memory, before it starts."""

import contextlib
import functools

import jax
import jax.numpy as jnp

from meljax.data.dataset import Dataset
from meljax.evaluation.memory import scoring_bytes, window_key, windows_text
from meljax.features.frontend import to_images
from meljax.training.state import Task, abstract_state, model_of
from meljax.util import memory
from meljax.util.errors import UserError


def check_memory(
    task: Task, dataset: Dataset, batch_size: int
) -> contextlib.AbstractContextManager:
    """Returns a context in which running out of memory becomes a `UserError`.

    Raises:
      UserError: the set and a training step need more memory than is free on a device.
    """
    devices = task.mesh.devices.flatten()
    on_host = devices[0].platform == "cpu"
    batch = -(-batch_size // len(devices))
    items = _set_bytes(task, dataset)
    step = step_bytes(task, batch)
    needed, free = items + step, memory.free_on(devices[0])
    if on_host:  # all devices share it, and a set is copied when it is placed there
        needed = max(items * (len(devices) + 1), (items + step) * len(devices))
    text = (
        f"training needs at least {memory.size(needed)} of "
        f"{'memory' if on_host else 'the memory of each device'}, and {memory.size(free)} were "
        f"free: {memory.size(items)} for {len(dataset.items):,} items, {memory.size(step)} for a "
        f"batch of {batch} {windows_text(task.frontend)} on each device; use a smaller "
        f"{window_key(task.frontend)} or train.batch_size, or fewer items"
    )
    if needed > free:
        raise UserError(text)
    return memory.explained(text)


def _set_bytes(task: Task, dataset: Dataset) -> int:
    """Returns the bytes of all splits on a device; see `make_device_set`."""
    itemsize = max(array.dtype.itemsize for array in dataset.arrays)
    window = task.frontend.windows(1).size
    return itemsize * (sum(array.size for array in dataset.arrays) + 6 * window)


@functools.cache
def step_bytes(task: Task, batch: int) -> int:
    """Returns the bytes that a device needs at least to train on, or score, `batch` windows."""
    state = abstract_state(task)
    windows = task.frontend.windows(batch)
    images = jax.eval_shape(lambda windows: to_images(task.frontend, windows), windows)
    front_end = memory.need(lambda windows: to_images(task.frontend, windows), windows)

    def train(variables: dict, images: jax.Array) -> tuple:
        weight = jnp.ones(batch)
        return task.network.apply(variables, images, weight, train=True, mutable=["batch_stats"])

    network = memory.need(train, state.variables, images)
    training = network.held + max(network.largest, front_end.largest)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return weights + max(training, scoring_bytes(model_of(task, state)))
