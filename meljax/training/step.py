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
    """Returns the state after one step.

    The step is bad if the loss, a gradient, its square (which Adam needs) or a running statistic is
    infinite or NaN. A bad step changes only `metrics.first_bad_step`, which becomes `step`. With
    `task.skip_bad` it is skipped instead, unless it is the third in a row: only `step`, `skips` and
    `metrics.skipped` change, each by 1. If all values are finite, so are the new weights: Adam
    changes a weight by a few learning rates at most.

    Args:
      task: the fixed parts of the run.
      state: the state before the step, in the forms of `layout`. Its metrics get the loss and the
        predictions of the masked images, with the weights before the update.
      data: the training split, on the devices.
      index: items of the batch; `PADDING` marks empty slots.
      draws: random numbers for the items.
      layout: the forms of parameters and statistics.
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
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(values)]).all()
    # Without the barrier, XLA fuses this check into the kernel of each updated array.
    return jax.lax.optimization_barrier(finite)


@functools.partial(jit, static_argnames="task", donate_argnames="state")
def train_step(
    task: Task,
    state: TrainState,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> TrainState:
    """Returns the state after one step on a row of `order`; see `_step`. `state` is donated.

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
    """Takes the steps from `state.step` to `end` in one program. `state` is donated.

    The device then does not wait for the host between steps. A step that must stop the run ends the
    program. The result does not depend on how an epoch is divided into programs. XLA:CPU runs steps
    in such a loop about ten times slower than one by one (jax issue 12868).

    Args:
      task, state, data, order, key: as in `train_step`.
      end: number of the step before which the program ends. It must not be after the last step of
        the epoch of `state.step`, which is not checked.
    """
    layout = flat_layout(state)
    first = state.step - state.step % len(order)
    steps = first + jnp.arange(len(order))
    # Drawing the random numbers of all steps before the loop keeps their kernels out of each step.
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
