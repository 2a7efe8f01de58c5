"""The training loop: epochs of steps, each followed by scoring the validation split."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from meljax.config import TrainConfig
from meljax.data.batches import PADDING, DeviceSet, epoch_order, row_counts, steps_per_epoch
from meljax.evaluation import metrics
from meljax.evaluation.metrics import NEVER, Metrics, Row
from meljax.evaluation.scorer import score_split, window_order
from meljax.training.rng import Stream, key
from meljax.training.state import Task, TrainState, model_of
from meljax.training.step import train_step, train_steps
from meljax.util import devices
from meljax.util.devices import replicated

StepDone = Callable[[int, int, TrainState], None]
"""Called after each step, or each program of many steps, with the epoch (from 1), the number of
items that it trained on, and the state."""

PROGRAM_SECONDS = 1.0
"""Time that a program of many steps should take, in s. A run can stop only between two programs."""


class Start(NamedTuple):
    """Where training begins: the state, the number of epochs before it, and the time in s that was
    already spent on the next epoch."""

    state: TrainState
    epochs: int = 0
    seconds: float = 0.0


class Epoch(NamedTuple):
    """The state after an epoch (the next epoch overwrites it), its scores, and the confusion matrix
    of the validation split."""

    state: TrainState
    row: Row
    confusion: Int[np.ndarray, "classes classes"]


class NotFiniteError(Exception):
    """A value is infinite or NaN, or every step of an epoch was skipped for this reason.

    Attributes:
      epoch: number of the epoch, from 1.
      state: the state before the step with the value; after the epoch if `items` is `None`.
      items: of the step's batch; `None` if the value is in the validation, or if every step was
        skipped.
    """

    def __init__(self, epoch: int, state: TrainState, items: Int[np.ndarray, " batch"] | None):
        super().__init__(f"an infinite or NaN value in epoch {epoch}")
        self.epoch, self.state, self.items = epoch, state, items


def train_epochs(
    task: Task,
    config: TrainConfig,
    sets: Mapping[str, DeviceSet],
    start: Start,
    step_done: StepDone,
    stepping: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Iterator[Epoch]:
    """Trains and scores the remaining epochs, up to `config.epochs`, and yields each of them.

    The caller records and saves an epoch before it requests the next one.

    Args:
      task: the fixed parts of the run.
      config: epochs, batch size and seed.
      sets: the splits 'train' and 'val', on the devices.
      start: where training begins.
      step_done: see `StepDone`; may raise to stop.
      stepping: returns the context in which the steps of an epoch are taken.

    Raises:
      NotFiniteError: a loss, gradient or running statistic is infinite or NaN.
    """
    items, val = len(sets["train"]), sets["val"]
    steps = steps_per_epoch(items, config.batch_size)
    state, pace = start.state, _Pace()
    order = window_order(model_of(task, state), val)
    for epoch in range(start.epochs + 1, config.epochs + 1):
        begun = time.perf_counter() - (start.seconds if epoch == start.epochs + 1 else 0)
        with jax.transfer_guard_device_to_host("disallow"):
            with stepping():
                state = _train_epoch(task, config, sets["train"], state, epoch, step_done, pace)
            trained_at = time.perf_counter()
            scored, _ = score_split(model_of(task, state), val, order)
        trained, scored = metrics.fetch(state.metrics, scored)
        if not np.isfinite(scored.loss_sum) or not trained.count:  # 0: all steps were skipped
            raise NotFiniteError(epoch, state, None)
        row = {"epoch": epoch, "step": epoch * steps}
        background = () if task.background is None else (task.background,)
        row |= _scores("train", trained, background) | _scores("val", scored, task.unscored)
        row |= {"train_skipped": int(trained.skipped), "seconds": time.perf_counter() - begun}
        row |= {"images_per_second": items / (trained_at - begun)}
        none = jax.device_put(Metrics.zero(len(task.classes)), replicated(task.mesh))
        state = state.replace(metrics=none)
        yield Epoch(state, row, np.asarray(scored.confusion))


class _Pace:
    """The number of steps of a program."""

    def __init__(self) -> None:
        self.steps = 16  # until the time of a step is known
        self._compiled = False

    def adapt(self, steps: int, seconds: float) -> None:
        """Adapts the number of steps to the time of a program, except the first: it compiles."""
        if self._compiled:
            self.steps = max(1, int(PROGRAM_SECONDS * steps / seconds))
        self._compiled = True


def _train_epoch(
    task: Task,
    config: TrainConfig,
    data: DeviceSet,
    state: TrainState,
    epoch: int,
    step_done: StepDone,
    pace: _Pace,
) -> TrainState:
    """Takes the remaining steps of an epoch; returns the state with the epoch's metrics."""
    place = replicated(task.mesh)
    order_key = key(config.seed, Stream.ORDER, epoch)
    order = epoch_order(order_key, len(data), config.batch_size, task.mesh.size)
    order = jax.device_put(order, place)
    masks_key = jax.device_put(key(config.seed, Stream.AUGMENT), place)
    counts = row_counts(len(data), config.batch_size)
    done = int(jax.device_get(state.step)) - (epoch - 1) * len(counts)

    def check_finite(first_bad_step: Array) -> None:
        bad = int(jax.device_get(first_bad_step))
        if bad != NEVER:
            items = np.asarray(jax.device_get(order))[bad % len(counts)]
            raise NotFiniteError(epoch, state, items[items != PADDING])

    if devices.steps_in_one_program():
        while done < len(counts):
            begun, count = time.perf_counter(), min(pace.steps, len(counts) - done)
            end = (epoch - 1) * len(counts) + done + count
            state = train_steps(task, state, data, order, masks_key, end)
            check_finite(state.metrics.first_bad_step)
            pace.adapt(count, time.perf_counter() - begun)
            step_done(epoch, sum(counts[done : done + count]), state)
            done += count
        return state
    first_bad = None
    for count in counts[done:]:
        state = train_step(task, state, data, order, masks_key)
        # The previous step's flag is read while this step runs, so no step waits for it.
        if first_bad is not None:
            check_finite(first_bad)
        first_bad = jnp.copy(state.metrics.first_bad_step)
        step_done(epoch, count, state)
    if first_bad is not None:
        check_finite(first_bad)
    return jax.block_until_ready(state)


def _scores(split: str, measured: Metrics, unscored: Sequence[int]) -> Row:
    confusion = np.asarray(measured.confusion)
    return {
        f"{split}_loss": float(measured.loss),
        f"{split}_accuracy": metrics.accuracy(confusion, unscored),
        f"{split}_f1": float(metrics.macro_f1(confusion, unscored)),
    }
