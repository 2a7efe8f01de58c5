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
      checkpoints: where they are saved, and where earlier sessions' lie.
      clock: tells seconds.
    """

    def __init__(self, checkpoints: Checkpoints, clock: Callable[[], float] = time.monotonic):
        self._checkpoints = checkpoints
        self._clock = clock
        self._best = checkpoints.best_rank()
        self._waiting_best: _Epoch | None = None
        self._waiting: _Epoch | None = None
        self._saved_at: float | None = None

    def epoch_done(self, state: TrainState, meta: dict[str, Any], row: Row) -> None:
        """Takes note of an epoch, and saves it if it is time to.

        Raises:
          UserError: a checkpoint could not be written.
        """
        is_best = self._best is None or rank(row) > self._best
        is_time = self._saved_at is None or self._clock() - self._saved_at >= SECONDS
        self._waiting = _Epoch(state if is_time else _copy(state), meta, row)
        if is_best:
            self._best, self._waiting_best = rank(row), self._waiting
        if is_time:
            self._save_waiting()

    def close(self) -> None:
        """Saves what waits, and waits until all is on the disk.

        Raises:
          UserError: a checkpoint could not be written.
        """
        self._save_waiting()
        self._checkpoints.wait()

    def _save_waiting(self) -> None:
        """Saves the best and the latest epoch that are not saved yet; in this order, as by step."""
        best, latest = self._waiting_best, self._waiting
        # Forgotten only when saved: a signal may arrive in between.
        if best is not None and best is not latest:
            self._checkpoints.save(*best)
        self._waiting_best = None
        if latest is not None:
            self._checkpoints.save(*latest)
            self._saved_at = self._clock()
        self._waiting = None


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)
