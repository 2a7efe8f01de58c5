"""The training loop: epochs of steps, each followed by scoring the validation split."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from meljax.config import TrainConfig
from meljax.data.batches import DeviceSet, epoch_order, row_counts, steps_per_epoch
from meljax.evaluation import metrics
from meljax.evaluation.metrics import NEVER, Metrics, Row
from meljax.evaluation.scorer import score_split, window_order
from meljax.training.rng import Stream, key
from meljax.training.state import Task, TrainState, model_of
from meljax.training.step import train_epoch, train_step
from meljax.util import devices
from meljax.util.devices import replicated
from meljax.util.errors import UserError

StepDone = Callable[[int, int, Metrics], None]
"""Called after each step with the epoch (from 1), the step's items and the metrics so far."""


class Epoch(NamedTuple):
    """The state after an epoch (the next epoch overwrites it), its scores, and the confusion matrix
    of the validation split."""

    state: TrainState
    row: Row
    confusion: Int[np.ndarray, "classes classes"]


def train_epochs(
    task: Task,
    config: TrainConfig,
    sets: Mapping[str, DeviceSet],
    state: TrainState,
    first: int,
    step_done: StepDone,
) -> Iterator[Epoch]:
    """Trains and scores the epochs from `first` to `config.epochs` and yields each of them.

    The caller records and saves an epoch before it requests the next one.

    Args:
      task: the fixed parts of the run.
      config: epochs, batch size and seed.
      sets: the splits 'train' and 'val', on the devices.
      state: the state after epoch `first` - 1.
      first: number of the first epoch to train, from 1.
      step_done: called after each step; may raise to stop.

    Raises:
      UserError: the loss was not finite.
    """
    items, val = len(sets["train"]), sets["val"]
    order = window_order(model_of(task, state), val)
    for epoch in range(first, config.epochs + 1):
        begun = time.perf_counter()
        with jax.transfer_guard_device_to_host("disallow"):
            state, trained = _train_epoch(task, config, sets["train"], state, epoch, step_done)
            trained_at = time.perf_counter()
            scored, _ = score_split(model_of(task, state), val, order)
        trained, scored = metrics.fetch(trained, scored)
        for measured in (trained, scored):
            _check_finite(measured.first_bad_step, epoch, config.learning_rate)
        row = {"epoch": epoch, "step": epoch * steps_per_epoch(items, config.batch_size)}
        background = () if task.background is None else (task.background,)
        row |= _scores("train", trained, background) | _scores("val", scored, task.unscored)
        row |= {"seconds": time.perf_counter() - begun}
        row |= {"images_per_second": items / (trained_at - begun)}
        yield Epoch(state, row, np.asarray(scored.confusion))


def _train_epoch(
    task: Task,
    config: TrainConfig,
    data: DeviceSet,
    state: TrainState,
    epoch: int,
    step_done: StepDone,
) -> tuple[TrainState, Metrics]:
    """Trains on every item once; returns the state and the metrics of the steps."""
    place = replicated(task.mesh)
    order_key = key(config.seed, Stream.ORDER, epoch)
    order = epoch_order(order_key, len(data), config.batch_size, task.mesh.size)
    order = jax.device_put(order, place)
    masks_key = jax.device_put(key(config.seed, Stream.AUGMENT), place)
    measured = jax.device_put(Metrics.zero(len(task.classes)), place)
    if devices.epoch_in_one_program():
        state, measured = train_epoch(task, state, measured, data, order, masks_key)
        step_done(epoch, len(data), jax.block_until_ready(measured))
        return state, measured
    bad_step = None
    for count in row_counts(len(data), config.batch_size):
        state, measured = train_step(task, state, measured, data, order, masks_key)
        # The previous step's flag is read while this step runs, so no step waits for it.
        if bad_step is not None:
            _check_finite(jax.device_get(bad_step), epoch, config.learning_rate)
        bad_step = jnp.copy(measured.first_bad_step)
        step_done(epoch, count, measured)
    return state, jax.block_until_ready(measured)


def _check_finite(first_bad_step: Int[np.ndarray, ""], epoch: int, rate: float) -> None:
    """Raises `UserError` if the loss of a step was infinite or NaN."""
    if first_bad_step != NEVER:
        raise UserError(
            f"the loss became infinite or NaN in epoch {epoch}; try a smaller "
            f"train.learning_rate than {rate:g}, in a new --workdir; earlier epochs are kept"
        )


def _scores(split: str, measured: Metrics, unscored: Sequence[int]) -> Row:
    confusion = np.asarray(measured.confusion)
    return {
        f"{split}_loss": float(measured.loss),
        f"{split}_accuracy": metrics.accuracy(confusion, unscored),
        f"{split}_f1": float(metrics.macro_f1(confusion, unscored)),
    }
