"""Which epochs of a run are saved, and when."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from meljax.checkpoint import Checkpoints, rank
from meljax.metrics import Row
from meljax.state import TrainState

SECONDS = 10.0
"""Saving more often than this would cost short epochs more than it can ever give back."""


class _Epoch(NamedTuple):
    """What is saved of an epoch."""

    state: TrainState
    meta: dict[str, Any]
    row: Row


class EpochSaver:
    """Saves the first epoch of a session, then one every `SECONDS`; and the best, and the last.

    Until they are saved, the best and the latest epoch's states stay on the devices, in copies: the
    next step overwrites what it is given.

    Args:
      checkpoints: where they are saved.
      history: rows of the epochs behind; the best of them lies in `checkpoints`.
      clock: tells seconds.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        history: list[Row],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._checkpoints = checkpoints
        self._clock = clock
        self._best = max(map(rank, history), default=None)
        self._waiting_best: _Epoch | None = None
        self._waiting: _Epoch | None = None
        self._saved_at: float | None = None

    def epoch_done(self, state: TrainState, meta: dict[str, Any], row: Row) -> None:
        """Takes note of an epoch, and saves it if it is time to.

        Raises:
          UserError: a checkpoint could not be written.
        """
        is_best = self._best is None or rank(row) > self._best
        if is_best:
            self._best = rank(row)
        if self._saved_at is None or self._clock() - self._saved_at >= SECONDS:
            self._waiting = _Epoch(state, meta, row)
            self._waiting_best = None if is_best else self._waiting_best
            self.save_waiting()
            return
        self._waiting = _Epoch(_copy(state), meta, row)
        self._waiting_best = self._waiting if is_best else self._waiting_best

    def save_waiting(self) -> None:
        """Saves the best and the latest epoch, unless they are saved; in this order, as by step.

        Raises:
          UserError: a checkpoint could not be written.
        """
        waiting = [self._waiting_best, self._waiting]
        if waiting[0] is waiting[1]:
            waiting = waiting[1:]
        self._waiting_best = self._waiting = None
        for epoch in filter(None, waiting):
            self._checkpoints.save(*epoch)
            self._saved_at = self._clock()

    close = save_waiting


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)
