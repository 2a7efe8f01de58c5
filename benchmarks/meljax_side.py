"""The training step and forward pass of meljax, one side of `scripts/bench.py`.

It imports only what is timed, so it needs only jax, flax, optax, numpy and psutil.
"""

import functools
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
try:
    import jaxtyping  # noqa: F401
except ImportError:
    # A replacement: annotations of shapes do not affect the computation.
    class _Anything(type):
        def __getitem__(cls, _: Any) -> Any:
            return Any

    module = types.ModuleType("jaxtyping")
    module.__getattr__ = lambda name: _Anything(name, (), {})
    sys.modules["jaxtyping"] = module

import flax
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from protocol import CLASSES, serve, set_size

from meljax.config import MaskConfig, MelConfig, TrainConfig
from meljax.data.batches import epoch_order, make_device_set
from meljax.evaluation.forward import window_logits
from meljax.evaluation.metrics import cross_entropy
from meljax.features.frontend import Frontend
from meljax.features.spec_augment import draws_needed, fill_bands, random_bands
from meljax.models.resnet import ResNet18
from meljax.training.augmentation import train_images
from meljax.training.rng import Stream, key
from meljax.training.state import Task, TrainState, init_state, make_optimizer
from meljax.training.step import train_step, train_steps
from meljax.util import devices
from meljax.util.devices import jit, make_mesh, replicated


class Side:
    """A task, its data and its state, for one setting."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        del mode
        items = set_size(batch, devices.steps_in_one_program())
        rng = np.random.default_rng(0)
        frontend = Frontend("image", size, size, 1, size, MelConfig())
        network = ResNet18(CLASSES, dtype=compute)
        optimizer = make_optimizer(TrainConfig(batch_size=batch), items)
        classes = tuple(map(str, range(CLASSES)))
        self.task = Task(network, frontend, MaskConfig(), optimizer, classes, make_mesh())
        images = rng.integers(0, 256, (items, size, size, 1)).astype(np.uint8)
        self.place = replicated(self.task.mesh)
        self.data = make_device_set(
            list(images),
            rng.integers(0, CLASSES, items),
            size,
            self.place,
        )
        self.state = init_state(self.task, key(0, Stream.INIT))
        self.done = 0  # steps
        order = epoch_order(key(0, Stream.ORDER, 1), items, batch, self.task.mesh.size)
        self.order = jax.device_put(order, self.place)
        self.masks_key = jax.device_put(key(0, Stream.AUGMENT), self.place)
        self.windows = jax.device_put(images[:batch])
        self.scaled = self.windows / jnp.float32(255)
        self.labels = self.data.label[:batch]

    def train(self, count: int) -> int:
        """Takes steps like a run, one by one or by whole epochs; returns their number."""
        whole = devices.steps_in_one_program()
        at_once = len(self.order) if whole else 1
        times = -(-count // at_once)
        for _ in range(times):
            arguments = self.task, self.state, self.data, self.order, self.masks_key
            end = self.done + at_once
            self.state = train_steps(*arguments, end) if whole else train_step(*arguments)
            self.done = end
        jax.block_until_ready(self.state)
        return times * at_once

    def forward(self, count: int) -> None:
        """Computes the logits of whole batches, without masks."""
        task = self.task
        for _ in range(count):
            logits = window_logits(
                task.network, task.frontend, task.mesh, self.state.variables, self.windows
            )
        jax.block_until_ready(logits)

    def images(self, count: int) -> None:
        """Cuts windows of random items, scales them to 0…1 and masks them."""
        for step in range(count):
            row = self.order[step % len(self.order)]
            _, masked = _images(self.task, self.data, row, self.masks_key)
        jax.block_until_ready(masked)

    def masking(self, count: int) -> None:
        """Masks the images of a batch."""
        for _ in range(count):
            masked = _masked(self.masks_key, self.scaled, self.task.mask)
        jax.block_until_ready(masked)

    def gradient(self, count: int) -> None:
        """Computes the forward and backward pass in training mode."""
        for _ in range(count):
            gradient = _gradient(self.task.network, self.state, self.scaled, self.labels)
        jax.block_until_ready(gradient)

    def optimizer(self, count: int) -> None:
        """Takes steps of Adam on separate arrays, as a run does on a CPU.

        On accelerators a run updates one vector; see `training.flat`.
        """
        for _ in range(count):
            self.state = _update(self.task.optimizer, self.state)
        jax.block_until_ready(self.state)


_images = jit(train_images, static_argnums=0)


@functools.partial(jit, static_argnums=2)
def _masked(key: jax.Array, images: jax.Array, config: MaskConfig) -> jax.Array:
    bits = jax.random.bits(key, (len(images), draws_needed(config)), "uint32")
    rows, columns = random_bands(bits, *images.shape[1:3], config)
    return jax.vmap(functools.partial(fill_bands, fill=config.fill))(images, rows, columns)


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
def _update(optimizer: optax.GradientTransformation, state: TrainState) -> TrainState:
    updates, opt_state = optimizer.update(state.params, state.opt_state, state.params)
    return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)


def prepare(what: str, **setting: Any) -> Any:
    """Returns a function that takes a number of steps and waits for the end."""
    return getattr(Side(**setting), what)


def device_mb() -> float | None:
    """Returns the peak memory of the accelerator in MB; `None` on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in stats else None


def driver() -> str | None:
    """Returns the version of NVIDIA's driver; `None` without one."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError):
        return None


def info() -> dict[str, Any]:
    """Returns versions and the device."""
    device = jax.devices()[0]
    versions = {each.__name__: each.__version__ for each in (jax, jaxlib, flax, optax)}
    return versions | {
        "driver": driver(),
        "platform": device.platform,
        "device": device.device_kind,
        "accelerator": devices.steps_in_one_program(),
    }


if __name__ == "__main__":
    devices.set_up()
    serve(prepare, info(), device_mb)
