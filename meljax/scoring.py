"""A set scored item by item: what was predicted, what went wrong, what was seen."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from meljax import steps
from meljax.data import feed
from meljax.data.load import Side, VoiceSet
from meljax.mesh import replicated
from meljax.metrics import Metrics
from meljax.results import MaskExample, Mistake, Scored
from meljax.state import TrainState
from meljax.steps import Task

BATCH = 64
"""Items scored at once; of no consequence for the scores beyond rounding."""

_eval_pictures = jax.jit(steps.eval_pictures, static_argnums=0)
_train_pictures = jax.jit(steps.train_pictures, static_argnums=0)


def scoring_order(task: Task, items: int) -> Int[Array, "steps batch"]:
    """Returns the order in which a set of `items` is scored, on the device."""
    rows = feed.in_rows(np.arange(items, dtype=np.int32), BATCH, task.mesh.size)
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


def scored(
    task: Task,
    state: TrainState,
    data: feed.DeviceSet,
    *,
    side: Side,
    epoch: int,
    chosen: bool,
) -> Scored:
    """Returns the scores of the weights of `epoch` on `data`, which stands on `side`.

    Args:
      task: what stays fixed.
      state: whose weights are scored.
      data: the set.
      side: 'val' or 'test'.
      epoch: after which the weights were so, from 1.
      chosen: whether they were chosen for their score on the validation set.
    """
    measured, logits = score(task, state, data, scoring_order(task, len(data)))
    return Scored(
        side=side,
        epoch=epoch,
        chosen=chosen,
        loss=float(measured.loss.compute()),
        probabilities=probabilities(logits, len(data)),
        labels=np.asarray(data.label),
    )


def worst_mistakes(
    task: Task, voices: VoiceSet, data: feed.DeviceSet, scores: Scored, most: int = 24
) -> list[Mistake]:
    """Returns the mistakes that were made with the greatest confidence, pictures included."""
    wrong = np.flatnonzero(scores.predictions != scores.labels)
    confidence = scores.probabilities.max(-1)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    if not len(worst):
        return []
    side = voices.indices(scores.side)
    items = [voices.items[side[i]] for i in worst]
    return [
        Mistake(
            path=item.path,
            label=item.label,
            prediction=voices.classes[scores.predictions[i]],
            probability=float(confidence[i]),
            picture=picture,
        )
        for i, item, picture in zip(worst, items, seen_pictures(task, data, worst), strict=True)
    ]


def mask_examples(
    task: Task, voices: VoiceSet, data: feed.DeviceSet, key: Key[Array, ""], most: int = 4
) -> list[MaskExample]:
    """Returns some pictures of the training set `data` before and after masking."""
    index = np.linspace(0, len(data) - 1, most).astype(np.int32)
    train = voices.indices("train")
    items = [voices.items[train[i]] for i in index]
    clean, masked = masked_pictures(task, data, index, key)
    return [
        MaskExample(item.path, item.label, before, after)
        for item, before, after in zip(items, clean, masked, strict=True)
    ]
