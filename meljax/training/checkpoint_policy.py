"""Decides which states of a run are saved, and when."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from meljax.evaluation.metrics import Row, rank
from meljax.training.checkpoint_meta import Meta
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import TrainState

SECONDS = 10.0
"""Minimum time between checkpoints, in s: saving a short epoch takes longer than training it."""


class _Waiting(NamedTuple):
    """The arguments of `Checkpoints.save`."""

    state: TrainState
    meta: Meta


class Saver:
    """Saves the first epoch of a session, then one every `SECONDS`, and always the best and last.

    The current step is saved every `save_every` seconds within long epochs, and if training stops.
    Epochs that wait to be saved are copied on the devices, because the next step overwrites them.

    Args:
      checkpoints: where states are saved.
      meta: of the state before the first step of the session.
      save_every: maximum time between two checkpoints, in s.
      clock: returns the time in s.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        meta: Meta,
        save_every: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._checkpoints = checkpoints
        self._meta = meta
        self._clock = clock
        self._save_every = save_every
        self._pause = min(SECONDS, save_every)
        self._best = checkpoints.best_rank()
        self._waiting_best: _Waiting | None = None
        self._waiting: _Waiting | None = None
        self._within: _Waiting | None = None
        self._begun = self._clock()  # of the current epoch
        self._saved_at: float | None = None
        self._last_save = self._begun

    def step_done(self, state: TrainState) -> None:
        """Keeps the state after a step, and saves it if it is time to.

        `close` saves the state, unless the epoch has ended or the next step has overwritten it.
        """
        now = self._clock()
        seconds = self._meta.seconds + now - self._begun
        self._within = _Waiting(state, dataclasses.replace(self._meta, seconds=seconds))
        if now - self._last_save >= self._save_every:
            self._save(self._within)

    def epoch_done(self, state: TrainState, row: Row) -> None:
        """Saves an epoch if it is time to; otherwise keeps it if it is the best or the latest."""
        history = (*self._meta.history, row)
        self._meta = dataclasses.replace(self._meta, history=history, seconds=0.0)
        self._within, self._begun = None, self._clock()
        is_best = self._best is None or rank(row) > self._best
        is_time = self._saved_at is None or self._clock() - self._saved_at >= self._pause
        self._waiting = _Waiting(state if is_time else _copy(state), self._meta)
        if is_best:
            self._best, self._waiting_best = rank(row), self._waiting
        if is_time:
            self._save_waiting()

    def close(self) -> None:
        """Saves the waiting epochs and the current step; returns when everything is on the disk."""
        within = self._within
        if within and not any(leaf.is_deleted() for leaf in jax.tree.leaves(within.state)):
            if self._waiting is not self._waiting_best:
                self._waiting = None  # the current step is later
            self._save_waiting()
            self._save(within)
        else:
            self._save_waiting()
        self._checkpoints.wait()

    def _save_waiting(self) -> None:
        """Saves the waiting epochs, in the order of their steps."""
        # An epoch is dropped only after it is saved.
        best, latest = self._waiting_best, self._waiting
        if best is not None and best is not latest:
            self._save(best)
        self._waiting_best = None
        if latest is not None:
            self._save(latest)
            self._saved_at = self._clock()
        self._waiting = None

    def _save(self, waiting: _Waiting) -> None:
        self._checkpoints.save(*waiting)
        self._last_save = self._clock()


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)
