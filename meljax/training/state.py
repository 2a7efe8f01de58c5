"""The task, fixed during a run, and the training state, which changes and is saved."""

import functools
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from meljax.config import MaskConfig, TrainConfig
from meljax.data.batches import steps_per_epoch
from meljax.evaluation.forward import Model
from meljax.evaluation.metrics import Metrics
from meljax.features.frontend import Frontend, to_images
from meljax.util.devices import replicated


class Task(NamedTuple):
    """Everything that stays fixed during a run; hashable, so it can be static under `jit`.

    `classes` are names in the order of the logits; `mesh` holds all devices; `unscored` are classes
    that are trained on, but not scored; `background`, if not `None`, is one of them; `skip_bad`
    says whether steps with infinite or NaN values are skipped.
    """

    network: nn.Module
    frontend: Frontend
    mask: MaskConfig
    optimizer: optax.GradientTransformation
    classes: tuple[str, ...]
    mesh: Mesh
    unscored: tuple[int, ...] = ()
    background: int | None = None
    skip_bad: bool = False


@flax.struct.dataclass
class TrainState:
    """A pytree of everything that changes during training.

    The item order and the masks are functions of `step` (int32) and the seed, and are not stored.
    `batch_stats` are the running mean and variance of each BatchNorm. `metrics` are those of the
    current epoch so far. `skips` (int32) counts the latest steps skipped in a row.
    """

    step: Any  # not Array: pytree mappings may replace a leaf with anything
    params: Any
    batch_stats: Any
    opt_state: Any
    metrics: Any
    skips: Any

    @property
    def variables(self) -> dict[str, Any]:
        """Returns the variables to apply the network with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def make_optimizer(config: TrainConfig, items: int) -> optax.GradientTransformation:
    """Returns Adam (Kingma & Ba 2015) with PyTorch's defaults.

    Gradients are clipped first if `clip_norm` is not 0. `lr_decay` multiplies the learning rate
    after each epoch of `items`; skipped steps do not count. The rate does not depend on the number
    of epochs, so a run can be extended as if it had been longer from the start.
    """
    steps = steps_per_epoch(items, config.batch_size)
    return _optimizer(config.learning_rate, steps, config.lr_decay, config.clip_norm)


@functools.cache  # equal settings give the same object, so a process compiles equal steps once
def _optimizer(
    learning_rate: float, steps: int, lr_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    rate = optax.exponential_decay(learning_rate, steps, lr_decay, staircase=True)
    adam = optax.adam(rate, b1=0.9, b2=0.999, eps=1e-8)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm else adam


def learning_rate(first: float, decay: float, epoch: int) -> float:
    """Returns the rate of `make_optimizer` in an epoch, counted from 1, if no step was skipped."""
    return first * decay ** (epoch - 1)


def model_of(task: Task, state: TrainState) -> Model:
    """Returns the model that evaluation scores: the network with the weights of `state`."""
    return Model(task.network, task.frontend, task.classes, task.mesh, state.variables)


def image_shape(frontend: Frontend) -> tuple[int, int, int]:
    """Returns rows, columns and channels of the network's input."""
    make = functools.partial(to_images, frontend)
    return jax.eval_shape(make, frontend.windows(batch=1)).shape[1:]


def blank_images(frontend: Frontend) -> Float[Array, "1 rows columns channel"]:
    """Returns one black image in the shape of the network's input."""
    return jnp.zeros((1, *image_shape(frontend)))


def random_variables(network: nn.Module, frontend: Frontend, key: Key[Array, ""]) -> PyTree:
    """Returns `{'params': ..., 'batch_stats': ...}` with random weights."""
    return network.init(key, blank_images(frontend), jnp.ones(1), train=False)


def first_state(task: Task, key: Key[Array, ""]) -> TrainState:
    """Returns the state before the first step, with random weights, on every device."""
    variables = random_variables(task.network, task.frontend, key)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=task.optimizer.init(variables["params"]),
        metrics=Metrics.zero(len(task.classes)),
        skips=jnp.zeros((), jnp.int32),
    )
    return jax.lax.with_sharding_constraint(state, replicated(task.mesh))


# It runs once: XLA would take far longer to optimize the many random draws than to compute them.
init_state = jax.jit(
    first_state, static_argnames="task", compiler_options={"xla_backend_optimization_level": 0}
)


def abstract_state(task: Task) -> TrainState:
    """Returns the state's shapes, dtypes and shardings, for restoring a checkpoint."""
    return _replicated_shapes(init_state.eval_shape(task, jax.random.key(0)), task.mesh)


@functools.cache
def abstract_weights(network: nn.Module, frontend: Frontend, mesh: Mesh) -> dict[str, Any]:
    """Returns shapes, dtypes and shardings of step, parameters and running statistics.

    They serve to restore `checkpoints.Weights`.
    """
    make = functools.partial(random_variables, network, frontend)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    like = {"step": step, **jax.eval_shape(make, jax.random.key(0))}
    return _replicated_shapes(like, mesh)


def _replicated_shapes(like: PyTree, mesh: Mesh) -> PyTree:
    place = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like)
