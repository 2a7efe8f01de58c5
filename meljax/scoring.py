"""A set scored item by item: what was predicted, what went wrong, what was seen."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from meljax import backend, calibration, steps, windows
from meljax import frontend as frontend_lib
from meljax.data import feed
from meljax.data.load import Side, VoiceSet
from meljax.mesh import replicated
from meljax.metrics import Metrics
from meljax.results import MaskExample, Mistake, Scored
from meljax.state import TrainState
from meljax.steps import Task

_train_pictures = backend.jit(steps.train_pictures, static_argnums=0)


class Order(NamedTuple):
    """The order in which a set is scored.

    Attributes:
      device: on the devices, padded.
      item: which item each window belongs to, in that order, without padding.
    """

    device: feed.WindowOrder
    item: Int[np.ndarray, " windows"]


def scoring_order(task: Task, data: feed.DeviceSet) -> Order:
    """Returns the order in which the whole of `data` is scored."""
    batch = backend.scoring_batch(task.mesh.size)
    order = feed.window_order(np.asarray(data.length), task.frontend.window, batch)
    item = order.item[order.item != feed.PADDING]
    return Order(jax.device_put(order, replicated(task.mesh)), item)


def score(
    task: Task, state: TrainState, data: feed.DeviceSet, order: Order
) -> tuple[Metrics, Float[Array, "rows batch classes"]]:
    """Returns metrics over the whole of `data`, and the logits in `order`'s rows.

    Nothing is fetched from the devices.
    """
    rows, batch = order.device.item.shape
    place = replicated(task.mesh)
    table = jax.device_put(np.zeros((rows, batch, task.classes), np.float32), place)
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def logits(row: int) -> Float[Array, "batch classes"]:
        seen = steps.scoring_windows(data, order.device, row, task.frontend.window, task.mesh)
        return steps.logits(task.network, task.frontend, task.mesh, variables, seen)

    for row, scores in enumerate(_concurrently(logits, rows)):
        table = steps.write_row(table, row, scores)
    return steps.measure(table, order.device.item, data.label), table


def _concurrently(function: Callable[[int], Array], count: int) -> Iterator[Array]:
    """Yields `function(0)` to `function(count - 1)`, as many at once as serve the backend."""
    yield function(0)  # which compiles it, once
    at_once = backend.in_flight()
    if at_once == 1:
        yield from map(function, range(1, count))
        return
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda i: jax.block_until_ready(function(i)), range(1, count))


def scored(
    task: Task,
    state: TrainState,
    data: feed.DeviceSet,
    *,
    side: Side,
    epoch: int,
    chosen: bool,
    temperature: float | None,
) -> Scored:
    """Returns the scores of the weights of `epoch` on `data`, which stands on `side`.

    Args:
      task: what stays fixed.
      state: whose weights are scored.
      data: the set.
      side: 'val' or 'test'.
      epoch: after which the weights were so, from 1.
      chosen: whether they were chosen for their score on the validation set.
      temperature: of the probabilities; `None`: the one that fits `data` best.
    """
    order = scoring_order(task, data)
    _, table = score(task, state, data, order)
    logits = np.asarray(table).reshape(-1, task.classes)[: len(order.item)]
    labels = np.asarray(data.label)
    if temperature is None:
        temperature = calibration.fit_temperature(logits, order.item, labels)
    return Scored(side, epoch, chosen, logits, order.item, labels, temperature)


# Runs once a run, on few pictures: not worth XLA's optimising.
@functools.partial(
    jax.jit,
    static_argnames="task",
    compiler_options={"xla_backend_optimization_level": 0},
)
def evidence(
    task: Task,
    variables: PyTree,
    windows: Shaped[Array, "batch window ..."],
    classes: Int[Array, " batch"],
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "batch rows columns"]]:
    """Returns the pictures of `windows`, and how much each part of them speaks for `classes`.

    Grad-CAM (Selvaraju et al. 2017) on the last maps before the mean over rows and columns. The
    logits are linear in that mean, so that the gradient by a map is the same everywhere: its weight
    in the last layer, over the number of places. Brought to 0…1 picture by picture.
    """
    images = frontend_lib.pictures(task.frontend, windows)
    _, sown = task.network.apply(
        variables, images, jnp.ones(len(images)), train=False, mutable=["intermediates"]
    )
    (maps,) = sown["intermediates"]["features"]
    weights = variables["params"]["fc"]["kernel"][:, classes].T
    heat = jax.nn.relu(jnp.einsum("brcf,bf->brc", maps, weights))
    heat = jax.image.resize(heat, images.shape[:3], "linear")
    return images, heat / jnp.maximum(heat.max((1, 2), keepdims=True), 1e-9)


def masked_pictures(
    task: Task, data: feed.DeviceSet, index: Int[np.ndarray, " n"], key: Key[Array, ""]
) -> tuple[
    Float[np.ndarray, "n rows columns channel"], Float[np.ndarray, "n rows columns channel"]
]:
    """Returns training pictures of the items `index`, before and after masking."""
    clean, masked = _train_pictures(task, data, jnp.asarray(index, jnp.int32), key)
    return np.asarray(clean), np.asarray(masked)


def worst_mistakes(
    task: Task,
    state: TrainState,
    voices: VoiceSet,
    data: feed.DeviceSet,
    scores: Scored,
    most: int = 24,
) -> list[Mistake]:
    """Returns the mistakes that were made with the greatest confidence, pictures included.

    Args:
      task: what stays fixed.
      state: the weights that made them.
      voices: the whole set.
      data: the side of it that `scores` is about.
      scores: of the weights of `state`.
      most: how many mistakes at most.
    """
    predictions, confidence = scores.predictions, scores.probabilities.max(-1)
    wrong = np.flatnonzero(predictions != scores.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    if not len(worst):
        return []
    start = np.array([_clearest_start(task, data, scores, int(i)) for i in worst], np.int32)
    # Always as many, so that one compiled program serves: the first stands in for what is missing.
    index, start, taken_for = (
        jnp.asarray(np.append(x, np.repeat(x[:1], most - len(worst))))
        for x in (worst, start, predictions[worst])
    )
    seen = feed.cut(data, index, start, task.frontend.window)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    pictures, heat = jax.device_get(evidence(task, variables, seen, taken_for))
    side = voices.indices(scores.side)
    return [
        Mistake(
            path=voices.items[side[i]].path,
            label=voices.items[side[i]].label,
            prediction=voices.classes[predictions[i]],
            probability=float(confidence[i]),
            picture=picture,
            evidence=warmth,
            sound=voices.arrays[side[i]] if voices.kind == "sound" else None,
        )
        for i, picture, warmth in zip(worst, pictures, heat, strict=False)
    ]


def _clearest_start(task: Task, data: feed.DeviceSet, scores: Scored, i: int) -> int:
    """Returns where the window begins that speaks most clearly for what item `i` was taken for."""
    own = np.flatnonzero(scores.item == i)
    clear = scores.logits[own] - np.logaddexp.reduce(scores.logits[own], -1, keepdims=True)
    starts = windows.starts(int(data.length[i]), task.frontend.window)
    return int(starts[clear[:, scores.predictions[i]].argmax()])


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
