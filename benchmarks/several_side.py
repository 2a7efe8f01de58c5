"""Several trainings in one program by `vmap` over seeds, a side of `scripts/bench.py`.

A setting's `mode` is the number of trainings.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from meljax_side import Side, device_mb, info
from protocol import serve

from meljax.training.rng import Stream, key
from meljax.training.state import TrainState, init_state
from meljax.training.step import train_step, train_steps
from meljax.util import devices
from meljax.util.devices import jit


class Several(Side):
    """Trainings that share task and data, and differ in initial weights, order and masks."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        super().__init__(batch, size, compute, mode)
        seeds = range(int(mode))
        states = [init_state(self.task, key(seed, Stream.INIT)) for seed in seeds]
        self.state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self.order = jnp.stack([jnp.roll(self.order, seed, 0) for seed in seeds])
        self.masks_key = jnp.stack([key(seed, Stream.AUGMENT) for seed in seeds])

    def train(self, count: int) -> int:
        """Takes steps of all trainings, one by one or by whole epochs.

        Returns the number of steps of each.
        """
        whole = devices.steps_in_one_program()
        at_once = self.order.shape[1] if whole else 1
        times = -(-count // at_once)
        take = _steps if whole else _step
        for _ in range(times):
            self.done += at_once
            self.state = take(
                self.task, self.state, self.data, self.order, self.masks_key, self.done
            )
        jax.block_until_ready(self.state)
        return times * at_once


@functools.partial(jit, static_argnums=0, donate_argnums=1)
def _steps(task: Any, states: TrainState, data: Any, orders: Any, keys: Any, end: Any) -> Any:
    steps = train_steps.__wrapped__
    return jax.vmap(lambda *each: steps(task, each[0], data, *each[1:], end))(states, orders, keys)


@functools.partial(jit, static_argnums=0, donate_argnums=1)
def _step(task: Any, states: TrainState, data: Any, orders: Any, keys: Any, end: Any) -> Any:
    del end
    step = train_step.__wrapped__
    return jax.vmap(lambda *each: step(task, each[0], data, *each[1:]))(states, orders, keys)


def prepare(what: str, **setting: Any) -> Any:
    """Returns a function that takes a number of steps and waits for the end."""
    return getattr(Several(**setting), what)


if __name__ == "__main__":
    devices.set_up()
    serve(prepare, info(), device_mb)
