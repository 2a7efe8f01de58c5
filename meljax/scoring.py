"""A set scored item by item, and the pictures that go with it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from meljax import steps
from meljax.data import feed
from meljax.mesh import replicated
from meljax.metrics import Metrics
from meljax.state import TrainState
from meljax.steps import Task

BATCH = 64
"""Items scored at once; of no consequence for the scores beyond rounding."""

_eval_pictures = jax.jit(steps.eval_pictures, static_argnums=0)
_train_pictures = jax.jit(steps.train_pictures, static_argnums=0)


def scoring_order(task: Task, items: int) -> Int[Array, "steps batch"]:
    """Returns the order in which a set of `items` is scored, on the device."""
    rows = feed.in_rows(np.arange(items, dtype=np.int32), min(BATCH, items), task.mesh.size)
    return jax.device_put(rows, replicated(task.mesh))


def score(
    task: Task, state: TrainState, data: feed.DeviceSet, order: Int[Array, "steps batch"]
) -> tuple[Metrics, Float[Array, "steps batch classes"]]:
    """Returns metrics over the whole of `data`, and the logits in `order`'s rows."""
    return steps.evaluate(task, state.params, state.batch_stats, data, order)


def probabilities(
    logits: Float[Array, "steps batch classes"], items: int
) -> Float[np.ndarray, "items classes"]:
    """Returns the softmax of each item's logits, padding removed, in float64."""
    rows = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])[:items]
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def seen_pictures(
    task: Task, data: feed.DeviceSet, index: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n rows columns channel"]:
    """Returns what the network sees of the items `index` in evaluation."""
    return np.asarray(_eval_pictures(task.frontend, data, jnp.asarray(index, jnp.int32)))


def masked_pictures(
    task: Task, data: feed.DeviceSet, index: Int[np.ndarray, " n"], key: Key[Array, ""]
) -> tuple[
    Float[np.ndarray, "n rows columns channel"], Float[np.ndarray, "n rows columns channel"]
]:
    """Returns training pictures of the items `index`, before and after masking."""
    clean, masked = _train_pictures(task, data, jnp.asarray(index, jnp.int32), key)
    return np.asarray(clean), np.asarray(masked)
