"""The training step, compiled alone and as a program of many steps."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from meljax.data.batches import PADDING, DeviceSet
from meljax.evaluation.metrics import NEVER, cross_entropy
from meljax.features.frontend import to_images
from meljax.features.spec_augment import mask_image
from meljax.features.windows import random_start
from meljax.training.state import Task, TrainState
from meljax.util.devices import jit, replicated, split_batch

MAX_SKIPS = 2
"""Maximum number of steps that are skipped in a row."""


def train_images(
    task: Task, data: DeviceSet, index: Int[Array, " batch"], key: Key[Array, ""]
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "batch rows columns channel"]]:
    """Returns images of random windows of the items `index`, before and after masking.

    Each item's key depends only on `key` and its position, not on the devices.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(
        jnp.arange(len(index), dtype=jnp.uint32)
    )
    window = task.frontend.window
    start = jax.vmap(functools.partial(random_start, window=window))(keys[:, 0], data.length[index])
    clean = to_images(task.frontend, data.windows(index, start, window))
    masked = jax.vmap(mask_image, (0, 0, None))(keys[:, 1], clean, task.mask)
    return clean, masked


def _step(
    task: Task,
    state: TrainState,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> TrainState:
    """Takes one step on the next row of `order`.

    If the loss, a gradient, its square (which Adam needs), a running statistic or a new weight is
    infinite or NaN, the state stays as it is, and `metrics.first_bad_step` becomes the step. With
    `task.skip_bad` the step is skipped instead, unless it is the third in a row.

    Args:
      task: the fixed parts of the run.
      state: the state before the step. Its metrics get the loss and the predictions of the masked
        images, with the weights before the update.
      data: the training split, on the devices.
      order: items of the epoch. Row `state.step % steps` is used; `PADDING` marks empty slots.
      key: the augmentation's key; the step is folded in.

    Returns:
      The state after the step.
    """
    index = order[state.step % order.shape[0]]
    index = jax.lax.with_sharding_constraint(index, split_batch(task.mesh))
    weight = (index != PADDING).astype(jnp.float32)
    index = jnp.maximum(index, 0)
    _, images = train_images(task, data, index, jax.random.fold_in(key, state.step))
    labels = data.label[index]

    def loss_fn(params: PyTree) -> tuple[Float[Array, ""], tuple[PyTree, Float[Array, "..."]]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = task.network.apply(
            variables, images, weight, train=True, mutable=["batch_stats"]
        )
        losses = cross_entropy(logits, labels)
        return (losses * weight).sum() / weight.sum(), (updated["batch_stats"], logits)

    (loss, (batch_stats, logits)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params
    )
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    stepped = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        metrics=state.metrics.updated(logits, labels, weight),
        skips=jnp.zeros_like(state.skips),
    )
    squares = jax.tree.map(jnp.square, gradients)
    finite = _all_finite((loss, squares, batch_stats, stepped.params))
    stepped = jax.tree.map(
        functools.partial(jnp.where, finite), stepped, _not_stepped(state, task.skip_bad)
    )
    return jax.lax.with_sharding_constraint(stepped, replicated(task.mesh))


def _all_finite(values: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(values)]).all()


def _not_stepped(state: TrainState, skip: bool) -> TrainState:
    """Returns the state after a step that is not taken; see `_step`."""
    skipped = (state.skips < MAX_SKIPS if skip else jnp.array(False)).astype(jnp.int32)
    metrics = state.metrics
    first_bad = jnp.minimum(metrics.first_bad_step, jnp.where(skipped, NEVER, state.step))
    return state.replace(
        step=state.step + skipped,
        skips=state.skips + skipped,
        metrics=metrics.replace(first_bad_step=first_bad, skipped=metrics.skipped + skipped),
    )


train_step = jit(_step, static_argnames="task", donate_argnames="state")
"""The compiled `_step`; the state is donated."""


@functools.partial(jit, static_argnames="task", donate_argnames="state")
def train_steps(
    task: Task,
    state: TrainState,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
    end: Int[Array, ""],
) -> TrainState:
    """Takes steps in one program until `state.step` is `end`; other arguments as in `_step`.

    Accelerators then never wait for the host. A step that must stop the run ends the program. The
    result does not depend on how an epoch is divided into programs. XLA:CPU runs steps inside such
    a loop many times slower than one by one.
    """

    def unfinished(state: TrainState) -> Bool[Array, ""]:
        return (state.step < end) & (state.metrics.first_bad_step == NEVER)

    return jax.lax.while_loop(unfinished, lambda state: _step(task, state, data, order, key), state)
