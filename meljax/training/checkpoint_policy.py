"""Decides which epochs of a run are saved, and when."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from meljax.evaluation.metrics import Row, rank
from meljax.training.checkpoints import Checkpoints, Meta
from meljax.training.state import TrainState

SECONDS = 10.0
"""Minimum time between checkpoints, in s: saving a short epoch takes longer than training it."""


class _Epoch(NamedTuple):
    """The arguments of `Checkpoints.save`."""

    state: TrainState
    meta: Meta
    row: Row


class EpochSaver:
    """Saves the first epoch of a session, then one every `SECONDS`, and always the best and last.

    Epochs that wait to be saved are copied on the devices, because the next step overwrites them.
    """

    def __init__(self, checkpoints: Checkpoints, clock: Callable[[], float] = time.monotonic):
        self._checkpoints = checkpoints
        self._clock = clock
        self._best = checkpoints.best_rank()
        self._waiting_best: _Epoch | None = None
        self._waiting: _Epoch | None = None
        self._saved_at: float | None = None

    def epoch_done(self, state: TrainState, meta: Meta, row: Row) -> None:
        """Saves an epoch if it is time to; otherwise keeps it if it is the best or the latest."""
        is_best = self._best is None or rank(row) > self._best
        is_time = self._saved_at is None or self._clock() - self._saved_at >= SECONDS
        self._waiting = _Epoch(state if is_time else _copy(state), meta, row)
        if is_best:
            self._best, self._waiting_best = rank(row), self._waiting
        if is_time:
            self._save_waiting()

    def close(self) -> None:
        """Saves the waiting epochs and returns when everything is on the disk."""
        self._save_waiting()
        self._checkpoints.wait()

    def _save_waiting(self) -> None:
        """Saves the waiting epochs, in the order of their steps."""
        # An epoch is dropped only after it is saved: a signal may arrive in between.
        best, latest = self._waiting_best, self._waiting
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
