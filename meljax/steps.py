"""One training step, and the scoring of a whole set: pure functions, compiled once each."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from meljax import frontend as frontend_lib
from meljax.augment import mask_picture
from meljax.backend import jit
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


def _step(
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
      state: before the step.
      metrics: of the epoch so far.
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


train_step = jit(_step, static_argnames="task", donate_argnames=("state", "metrics"))
"""`_step`, compiled; state and metrics are donated."""


@functools.partial(jit, static_argnames="task", donate_argnames=("state", "metrics"))
def train_epoch(
    task: Task,
    state: TrainState,
    metrics: Metrics,
    data: feed.DeviceSet,
    order: Int[Array, "steps batch"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Takes a step on each row of `order`, all in one program; arguments as in `_step`.

    For accelerators, which then never wait for the host. XLA:CPU runs the same steps many times
    slower inside a loop of its own than one by one.
    """

    def body(carry: tuple[TrainState, Metrics], _: None) -> tuple[tuple[TrainState, Metrics], None]:
        return _step(task, *carry, data, order, key), None

    return jax.lax.scan(body, (state, metrics), length=len(order))[0]


@functools.partial(jit, static_argnames=("network", "frontend", "mesh"))
def logits(
    network: nn.Module,
    frontend: Frontend,
    mesh: Mesh,
    variables: PyTree,
    windows: Shaped[Array, "batch window ..."],
) -> Float[Array, "batch classes"]:
    """Returns what the network makes of windows of raw data, without masks.

    The one way from data to scores: training, evaluation and prediction all call it with the same
    number of windows, hence run the same program and get the same bits.
    """
    windows = jax.lax.with_sharding_constraint(windows, split_batch(mesh))
    images = frontend_lib.pictures(frontend, windows)
    weight = jnp.ones(len(windows))
    scores = network.apply(variables, images, weight, train=False)
    return jax.lax.with_sharding_constraint(scores, replicated(mesh))


@functools.partial(jit, static_argnames=("window", "mesh"))
def scoring_windows(
    data: feed.DeviceSet, order: feed.WindowOrder, row: Int[Array, ""], window: int, mesh: Mesh
) -> Shaped[Array, "batch window ..."]:
    """Returns the windows of one row of `order`; where there is none stands some other one."""
    index = jnp.maximum(order.item[row], 0)
    windows = feed.cut(data, index, order.start[row], window)
    return jax.lax.with_sharding_constraint(windows, split_batch(mesh))


@functools.partial(jit, donate_argnames="table")
def write_row(
    table: Float[Array, "rows batch classes"],
    row: Int[Array, ""],
    scores: Float[Array, "batch classes"],
) -> Float[Array, "rows batch classes"]:
    """Returns `table`, donated, with `scores` in its row `row`."""
    return jax.lax.dynamic_update_index_in_dim(table, scores, row, 0)


@jit
def measure(
    table: Float[Array, "rows batch classes"],
    item: Int[Array, "rows batch"],
    labels: Int[Array, " items"],
) -> Metrics:
    """Returns the metrics of whole items from the logits of their windows.

    An item's probabilities are the mean of its windows'.
    """
    items, classes = len(labels), table.shape[-1]
    # Windows that are none belong to an item after the last.
    item = jnp.where(item == feed.PADDING, items, item).reshape(-1)
    log = jax.nn.log_softmax(table.reshape(-1, classes))
    highest = jax.ops.segment_max(log, item, items + 1)
    sums = jax.ops.segment_sum(jnp.exp(log - highest[item]), item, items + 1)
    count = jax.ops.segment_sum(jnp.ones((len(item), 1)), item, items + 1)
    means = (highest + jnp.log(sums / count))[:items]
    # To the metrics, logarithms of probabilities are logits like others.
    return Metrics.zero(classes).updated(means, labels, jnp.ones(items), jnp.int32(0))


def _blank(frontend: Frontend) -> Float[Array, "1 rows columns channel"]:
    """Returns one black picture, in the shape that the network will see."""
    image = jax.eval_shape(functools.partial(frontend_lib.pictures, frontend), frontend.windows(1))
    return jnp.zeros(image.shape, image.dtype)
