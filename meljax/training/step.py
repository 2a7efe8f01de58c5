"""The training step, compiled alone and as a whole epoch in one program."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from meljax.data.batches import PADDING, DeviceSet
from meljax.evaluation.metrics import NEVER, Metrics, cross_entropy
from meljax.features.frontend import to_images
from meljax.features.spec_augment import mask_image
from meljax.features.windows import random_start
from meljax.training.state import Task, TrainState
from meljax.util.devices import jit, replicated, split_batch


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
    metrics: Metrics,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Takes one step on the next row of `order`.

    Args:
      task: the fixed parts of the run.
      state: the state before the step.
      metrics: accumulated over the epoch so far.
      data: the training split, on the devices.
      order: items of the epoch. Row `state.step % steps` is used; `PADDING` marks empty slots.
      key: the augmentation's key; the step is folded in.

    Returns:
      The state after the step and the updated metrics: loss and predictions of the masked images,
      with the weights before the update.
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

    gradients, (batch_stats, logits) = jax.grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    stepped = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    metrics = metrics.updated(logits, labels, weight, state.step)
    return jax.lax.with_sharding_constraint((stepped, metrics), replicated(task.mesh))


train_step = jit(_step, static_argnames="task", donate_argnames=("state", "metrics"))
"""The compiled `_step`; state and metrics are donated."""


@functools.partial(jit, static_argnames="task", donate_argnames=("state", "metrics"))
def train_epoch(
    task: Task,
    state: TrainState,
    metrics: Metrics,
    data: DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Takes a step on each row of `order` in one program; arguments as in `_step`.

    Accelerators then never wait for the host. Steps after a loss that is not finite are skipped.
    XLA:CPU runs steps inside such a loop many times slower than one by one.
    """

    def body(carry: tuple[TrainState, Metrics], _: None) -> tuple[tuple[TrainState, Metrics], None]:
        finite = carry[1].first_bad_step == NEVER
        return jax.lax.cond(
            finite, lambda: _step(task, *carry, data, order, key), lambda: carry
        ), None

    return jax.lax.scan(body, (state, metrics), length=len(order))[0]
