"""meljax's own training step and forward pass, as one side of `scripts/bench.py`.

It imports what is timed and nothing else, so that it runs where jax, flax, optax and numpy are all
there is.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
if importlib.util.find_spec("jaxtyping") is None:
    # Annotations of shapes, which play no part in what is computed.
    class _Anything(type):
        def __getitem__(cls, _: Any) -> Any:
            return Any

    module = types.ModuleType("jaxtyping")
    module.__getattr__ = lambda name: _Anything(name, (), {})
    sys.modules["jaxtyping"] = module

import jax
import numpy as np
from protocol import serve

from meljax import optim, steps
from meljax.config import MaskConfig, MelConfig, TrainConfig
from meljax.data import feed
from meljax.frontend import Frontend
from meljax.mesh import make_mesh, replicated
from meljax.metrics import Metrics
from meljax.models.resnet import ResNet18
from meljax.streams import Stream, key

CLASSES = 24
ITEMS = 256


class Side:
    """A task, its data and its state, for one setting."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        del mode
        items = max(ITEMS, 2 * batch)
        rng = np.random.default_rng(0)
        frontend = Frontend("image", size, size, 1, size, MelConfig())
        network = ResNet18(CLASSES)
        optimiser = optim.optimiser(TrainConfig(batch_size=batch), items)
        self.task = steps.Task(network, frontend, MaskConfig(), optimiser, CLASSES, make_mesh())
        pictures = rng.integers(0, 256, (items, size, size, 1)).astype(np.uint8)
        self.place = replicated(self.task.mesh)
        self.data = feed.make_device_set(
            list(pictures),
            [np.zeros(1, np.uint8)] * items,
            rng.integers(0, CLASSES, items),
            self.place,
        )
        self.state = steps.init_state(self.task, key(0, Stream.INIT))
        self.metrics = jax.device_put(Metrics.zero(CLASSES), self.place)
        order = feed.epoch_order(key(0, Stream.ORDER, 1), items, batch, self.task.mesh.size)
        self.order = jax.device_put(order, self.place)
        self.masks_key = jax.device_put(key(0, Stream.AUGMENT), self.place)
        self.windows = jax.device_put(pictures[:batch])

    def train(self, count: int) -> None:
        """Takes some steps."""
        for _ in range(count):
            self.state, self.metrics = steps.train_step(
                self.task, self.state, self.metrics, self.data, self.order, self.masks_key
            )
        jax.block_until_ready(self.state)

    def forward(self, count: int) -> None:
        """Computes logits as in an evaluation."""
        task = self.task
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        for _ in range(count):
            scores = steps.logits(task.network, task.frontend, task.mesh, variables, self.windows)
        jax.block_until_ready(scores)


def prepare(what: str, **setting: Any) -> Any:
    """Returns a function of a number of steps that takes them and waits for the end."""
    return getattr(Side(**setting), what)


if __name__ == "__main__":
    serve(prepare, {"jax": jax.__version__, "device": jax.devices()[0].device_kind})
