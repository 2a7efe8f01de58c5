"""One training step, and the scoring of a whole set: pure functions, compiled once each."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree

from meljax import frontend as frontend_lib
from meljax.augment import mask_picture
from meljax.config import MaskConfig
from meljax.data import feed
from meljax.frontend import Frontend
from meljax.mesh import replicated, split_batch
from meljax.metrics import Metrics, cross_entropy
from meljax.state import TrainState


class Task(NamedTuple):
    """What stays fixed during a run; hashable, static under `jit`."""

    network: nn.Module
    frontend: Frontend
    mask: MaskConfig
    optimiser: optax.GradientTransformation
    classes: int
    mesh: Mesh


def first_state(task: Task, key: Key[Array, ""]) -> TrainState:
    """Returns the state before the first step, with random weights, on every device."""
    variables = task.network.init(key, _blank(task.frontend), jnp.ones(1), train=False)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=task.optimiser.init(variables["params"]),
    )
    return jax.lax.with_sharding_constraint(state, replicated(task.mesh))


# Runs once: optimising the many random draws would take XLA far longer than making them.
init_state = jax.jit(
    first_state,
    static_argnames="task",
    compiler_options={"xla_backend_optimization_level": 0},
)


def abstract_state(task: Task) -> TrainState:
    """Returns shapes and places of the state, without computing it: what a checkpoint restores."""
    like = jax.eval_shape(functools.partial(first_state, task), jax.random.key(0))
    place = replicated(task.mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like)


def train_pictures(
    task: Task, data: feed.DeviceSet, index: Int[Array, " batch"], key: Key[Array, ""]
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "batch rows columns channel"]]:
    """Returns pictures of random windows of the items `index`, before and after masking.

    Every example has a key of its own, whatever device it lies on.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(
        jnp.arange(len(index), dtype=jnp.uint32)
    )
    random_start = functools.partial(feed.random_start, window=task.frontend.window)
    start = jax.vmap(random_start)(keys[:, 0], data.length[index])
    windows = feed.cut(data, index, start, task.frontend.window)
    clean = frontend_lib.pictures(task.frontend, windows)
    masked = jax.vmap(mask_picture, (0, 0, None))(keys[:, 1], clean, task.mask)
    return clean, masked


@functools.partial(jax.jit, static_argnames="task", donate_argnames=("state", "metrics"))
def train_step(
    task: Task,
    state: TrainState,
    metrics: Metrics,
    data: feed.DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Takes one step on the row of `order` whose turn it is.

    Args:
      task: what stays fixed.
      state: donated.
      metrics: of the epoch so far; donated.
      data: the training set, on the device.
      order: the epoch's; row `state.step % steps` is taken. `feed.PADDING` marks no item.
      key: of the augmentation; the step's number is folded in.

    Returns:
      The state after the step, and `metrics` with this step's own loss and predictions (masks on,
      weights before the update) in them.
    """
    index = order[state.step % order.shape[0]]
    index = jax.lax.with_sharding_constraint(index, split_batch(task.mesh))
    weight = (index != feed.PADDING).astype(jnp.float32)
    index = jnp.maximum(index, 0)
    _, images = train_pictures(task, data, index, jax.random.fold_in(key, state.step))
    labels = data.label[index]

    def loss_fn(params: PyTree) -> tuple[Float[Array, ""], tuple[PyTree, Float[Array, "..."]]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = task.network.apply(
            variables, images, weight, train=True, mutable=["batch_stats"]
        )
        losses = cross_entropy(logits, labels)
        return (losses * weight).sum() / weight.sum(), (updated["batch_stats"], logits)

    gradient_fn = jax.grad(loss_fn, has_aux=True)
    gradients, (batch_stats, logits) = gradient_fn(state.params)
    updates, opt_state = task.optimiser.update(gradients, state.opt_state, state.params)
    stepped = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    metrics = metrics.updated(logits, labels, weight, state.step)
    return jax.lax.with_sharding_constraint((stepped, metrics), replicated(task.mesh))


@functools.partial(jax.jit, static_argnames="task")
def evaluate(
    task: Task,
    params: PyTree,
    batch_stats: PyTree,
    data: feed.DeviceSet,
    order: Int[Array, "steps batch"],
) -> tuple[Metrics, Float[Array, "steps batch classes"]]:
    """Scores every item of `order` once, on the middle window, without masks.

    Returns:
      Metrics over the whole set, and the logits in `order`'s rows (padding included).
    """

    def step(metrics: Metrics, row: Int[Array, " batch"]) -> tuple[Metrics, Float[Array, "..."]]:
        row = jax.lax.with_sharding_constraint(row, split_batch(task.mesh))
        weight = (row != feed.PADDING).astype(jnp.float32)
        index = jnp.maximum(row, 0)
        images = eval_pictures(task.frontend, data, index)
        variables = {"params": params, "batch_stats": batch_stats}
        logits = task.network.apply(variables, images, weight, train=False)
        return metrics.updated(logits, data.label[index], weight, jnp.int32(0)), logits

    # A scan of forward passes is as fast as a loop on every backend, and compiles to one call.
    result = jax.lax.scan(step, Metrics.zero(task.classes), order)
    return jax.lax.with_sharding_constraint(result, replicated(task.mesh))


def eval_pictures(
    frontend: Frontend, data: feed.DeviceSet, index: Int[Array, " batch"]
) -> Float[Array, "batch rows columns channel"]:
    """Returns the pictures of the middle windows of the items `index`."""
    start = feed.middle_start(data.length[index], frontend.window)
    return frontend_lib.pictures(frontend, feed.cut(data, index, start, frontend.window))


def _blank(frontend: Frontend) -> Float[Array, "1 rows columns channel"]:
    """Returns one black picture, in the shape that the network will see."""
    if frontend.kind == "sound":
        windows = jax.ShapeDtypeStruct((1, frontend.window), jnp.int16)
    else:
        shape = (1, frontend.window, frontend.height, frontend.channels)
        windows = jax.ShapeDtypeStruct(shape, jnp.uint8)
    image = jax.eval_shape(functools.partial(frontend_lib.pictures, frontend), windows)
    return jnp.zeros(image.shape, image.dtype)
