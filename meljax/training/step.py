"""The training step, compiled alone and as a program of many steps."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from meljax.data.batches import PADDING, DeviceSet
from meljax.evaluation.metrics import NEVER, cross_entropy
from meljax.training.augmentation import Draws, augment, draw
from meljax.training.flat import TREES, Layout, flat_layout, join_state, split_state
from meljax.training.state import Task, TrainState
from meljax.util.devices import jit, replicated, split_batch

MAX_SKIPS = 2
"""Maximum number of steps that are skipped in a row."""


def _step(
    task: Task,
    state: TrainState,
    data: DeviceSet,
    index: Int[Array, " batch"],
    draws: Draws,
    layout: Layout = TREES,
) -> TrainState:
    """Takes one step.

    If the loss, a gradient, its square (which Adam needs) or a running statistic is infinite or
    NaN, the state stays as it is, and `metrics.first_bad_step` becomes the step. With
    `task.skip_bad` the step is skipped instead, unless it is the third in a row. If all these are
    finite, so are the new weights: Adam changes a weight by a few learning rates at most.

    Args:
      task: the fixed parts of the run.
      state: the state before the step, in the forms of `layout`. Its metrics get the loss and the
        predictions of the masked images, with the weights before the update.
      data: the training split, on the devices.
      index: items of the batch; `PADDING` marks empty slots.
      draws: random numbers for the items.
      layout: the forms of parameters and statistics.

    Returns:
      The state after the step.
    """
    index = jax.lax.with_sharding_constraint(index, split_batch(task.mesh))
    weight = (index != PADDING).astype(jnp.float32)
    index = jnp.maximum(index, 0)
    _, images = augment(task, data, index, draws)
    labels = data.label[index]
    batch_stats = layout.batch_stats.split(state.batch_stats)

    def loss_fn(params: PyTree) -> tuple[Float[Array, ""], tuple[PyTree, Float[Array, "..."]]]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = task.network.apply(
            variables, images, weight, train=True, mutable=["batch_stats"]
        )
        losses = cross_entropy(logits, labels)
        return (losses * weight).sum() / weight.sum(), (updated["batch_stats"], logits)

    (loss, (batch_stats, logits)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
        layout.params.split(state.params)
    )
    batch_stats, gradients = layout.batch_stats.join(batch_stats), layout.params.join(gradients)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    stepped = state.replace(
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    finite = _all_finite((loss, jax.tree.map(jnp.square, gradients), batch_stats))
    stepped = jax.tree.map(functools.partial(jnp.where, finite), stepped, state)
    skipped = ~finite & (state.skips < MAX_SKIPS) & task.skip_bad
    metrics = state.metrics.updated(logits, labels, weight * finite)
    first_bad = jnp.where(finite | skipped, NEVER, state.step)
    stepped = stepped.replace(
        step=state.step + (finite | skipped),
        metrics=metrics.replace(
            first_bad_step=jnp.minimum(metrics.first_bad_step, first_bad),
            skipped=metrics.skipped + skipped,
        ),
        skips=jnp.where(finite, 0, state.skips + skipped),
    )
    return jax.lax.with_sharding_constraint(stepped, replicated(task.mesh))


def _all_finite(values: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(values)]).all()


@functools.partial(jit, static_argnames="task", donate_argnames="state")
def train_step(
    task: Task,
    state: TrainState,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> TrainState:
    """Takes one step on the next row of `order`; see `_step`. The state is donated.

    Args:
      task: the fixed parts of the run.
      state: the state before the step.
      data: the training split, on the devices.
      order: items of the epoch. Row `state.step % steps` is used; `PADDING` marks empty slots.
      key: the augmentation's key; the step is folded in.
    """
    index = order[state.step % len(order)]
    return _step(task, state, data, index, _draw(task, data, index, key, state.step))


@functools.partial(jit, static_argnames="task", donate_argnames="state")
def train_steps(
    task: Task,
    state: TrainState,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
    end: Int[Array, ""],
) -> TrainState:
    """Takes steps of an epoch in one program until `state.step` is `end`; see `train_step`.

    Accelerators then never wait for the host. A step that must stop the run ends the program. The
    result does not depend on how an epoch is divided into programs. XLA:CPU runs steps inside such
    a loop many times slower than one by one.
    """
    layout = flat_layout(state)
    first = state.step - state.step % len(order)
    steps = first + jnp.arange(len(order))
    # Drawn before the loop, the random numbers of all steps take no kernels of their own.
    drawn = jax.vmap(lambda row, step: _draw(task, data, row, key, step))(order, steps)

    def unfinished(state: TrainState) -> Bool[Array, ""]:
        return (state.step < end) & (state.metrics.first_bad_step == NEVER)

    def take(state: TrainState) -> TrainState:
        row = state.step - first
        draws = jax.tree.map(lambda each: each[row], drawn)
        return _step(task, state, data, order[row], draws, layout)

    joined = jax.lax.while_loop(unfinished, take, join_state(state, layout))
    return split_state(joined, layout, state)


def _draw(
    task: Task,
    data: DeviceSet,
    index: Int[Array, " batch"],
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> Draws:
    return draw(task, data.length[jnp.maximum(index, 0)], jax.random.fold_in(key, step))
