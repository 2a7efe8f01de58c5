"""meljax's own training step and forward pass, as one side of `scripts/bench.py`.

It imports what is timed and nothing else, so that it runs where jax, flax, optax and numpy are all
there is.
"""

import functools
import sys
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
try:
    import jaxtyping  # noqa: F401
except ImportError:
    # Annotations of shapes, which play no part in what is computed.
    class _Anything(type):
        def __getitem__(cls, _: Any) -> Any:
            return Any

    module = types.ModuleType("jaxtyping")
    module.__getattr__ = lambda name: _Anything(name, (), {})
    sys.modules["jaxtyping"] = module

import jax
import jax.numpy as jnp
import numpy as np
import optax
from protocol import CLASSES, serve, set_size

from meljax import backend, optim, steps
from meljax.augment import mask_picture
from meljax.backend import jit
from meljax.config import MaskConfig, MelConfig, TrainConfig
from meljax.data import feed
from meljax.frontend import Frontend
from meljax.mesh import make_mesh, replicated
from meljax.metrics import Metrics, cross_entropy
from meljax.models.resnet import ResNet18
from meljax.state import TrainState
from meljax.streams import Stream, key


class Side:
    """A task, its data and its state, for one setting."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        del mode
        items = set_size(batch, backend.steps_in_one_program())
        rng = np.random.default_rng(0)
        frontend = Frontend("image", size, size, 1, size, MelConfig())
        network = ResNet18(CLASSES, dtype=compute)
        optimiser = optim.optimiser(TrainConfig(batch_size=batch), items)
        self.task = steps.Task(network, frontend, MaskConfig(), optimiser, CLASSES, make_mesh())
        pictures = rng.integers(0, 256, (items, size, size, 1)).astype(np.uint8)
        self.place = replicated(self.task.mesh)
        self.data = feed.make_device_set(
            list(pictures),
            [np.zeros(1, np.uint8)] * items,
            rng.integers(0, CLASSES, items),
            size,
            self.place,
        )
        self.state = steps.init_state(self.task, key(0, Stream.INIT))
        self.metrics = jax.device_put(Metrics.zero(CLASSES), self.place)
        order = feed.epoch_order(key(0, Stream.ORDER, 1), items, batch, self.task.mesh.size)
        self.order = jax.device_put(order, self.place)
        self.masks_key = jax.device_put(key(0, Stream.AUGMENT), self.place)
        self.windows = jax.device_put(pictures[:batch])
        self.images = self.windows / jnp.float32(255)
        self.labels = self.data.label[:batch]

    def train(self, count: int) -> int:
        """Takes steps as a run does, one by one or by whole epochs; returns how many."""
        whole = backend.steps_in_one_program()
        at_once, take = (len(self.order), steps.train_epoch) if whole else (1, steps.train_step)
        times = -(-count // at_once)
        for _ in range(times):
            self.state, self.metrics = take(
                self.task, self.state, self.metrics, self.data, self.order, self.masks_key
            )
        jax.block_until_ready(self.state)
        return times * at_once

    def forward(self, count: int) -> None:
        """Computes the logits of whole batches, without masks."""
        task = self.task
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        for _ in range(count):
            scores = steps.logits(task.network, task.frontend, task.mesh, variables, self.windows)
        jax.block_until_ready(scores)

    def pictures(self, count: int) -> None:
        """Cuts windows of random items, brings them to 0…1 and masks them."""
        for step in range(count):
            row = self.order[step % len(self.order)]
            _, masked = _pictures(self.task, self.data, row, self.masks_key)
        jax.block_until_ready(masked)

    def masking(self, count: int) -> None:
        """Masks the pictures of a batch."""
        for _ in range(count):
            masked = _masked(self.masks_key, self.images, self.task.mask)
        jax.block_until_ready(masked)

    def gradient(self, count: int) -> None:
        """Computes the network forward and backward, in training mode."""
        for _ in range(count):
            gradient = _gradient(self.task.network, self.state, self.images, self.labels)
        jax.block_until_ready(gradient)

    def optimiser(self, count: int) -> None:
        """Takes Adam's step."""
        for _ in range(count):
            self.state = _update(self.task.optimiser, self.state)
        jax.block_until_ready(self.state)


_pictures = jit(steps.train_pictures, static_argnums=0)


@functools.partial(jit, static_argnums=2)
def _masked(key: jax.Array, images: jax.Array, config: MaskConfig) -> jax.Array:
    keys = jax.random.split(key, len(images))
    return jax.vmap(mask_picture, (0, 0, None))(keys, images, config)


@functools.partial(jit, static_argnums=0)
def _gradient(network: ResNet18, state: TrainState, images: jax.Array, labels: jax.Array) -> Any:
    def loss(params: Any) -> jax.Array:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = network.apply(
            variables, images, jnp.ones(len(images)), train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, labels).mean()

    return jax.grad(loss)(state.params)


@functools.partial(jit, static_argnums=0, donate_argnums=1)
def _update(optimiser: optax.GradientTransformation, state: TrainState) -> TrainState:
    updates, opt_state = optimiser.update(state.params, state.opt_state, state.params)
    return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)


def prepare(what: str, **setting: Any) -> Any:
    """Returns a function of a number of steps that takes them and waits for the end."""
    return getattr(Side(**setting), what)


def device_mb() -> float | None:
    """Returns the most of an accelerator's memory that was in use, in MB."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in stats else None


def facts() -> dict[str, Any]:
    """Returns what the bench must know of this side, and what its readers want to."""
    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "platform": device.platform,
        "device": device.device_kind,
        "accelerator": backend.steps_in_one_program(),
    }


if __name__ == "__main__":
    backend.set_up()
    serve(prepare, facts(), device_mb)
