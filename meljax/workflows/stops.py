"""Messages about a run that stops: why, what was saved, and how to resume."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int

from meljax.data.batches import steps_per_epoch
from meljax.runs.session import Session
from meljax.training.loop import NotFiniteError
from meljax.training.state import TrainState
from meljax.util.errors import UserError

MAX_NAMES = 100
"""Maximum number of items that a message names."""


def position(session: Session, step: int) -> str:
    """Returns 'epoch 3' or 'step 57 of 186 of epoch 3'."""
    steps = steps_per_epoch(len(session.sets["train"]), session.config.train.batch_size)
    epochs, within = divmod(step, steps)
    return f"step {within:,} of {steps:,} of epoch {epochs + 1}" if within else f"epoch {epochs}"


def resume_hint(session: Session) -> str:
    """Returns what was saved, for the line after a stop."""
    step = session.checkpoints.latest_step()
    if not step:
        return "nothing was saved; run the same command again to start over"
    return f"saved up to {position(session, step)}; run the same command again to resume there"


@contextlib.contextmanager
def bad_values_explained(session: Session, save: Callable[[TrainState], None]) -> Iterator[None]:
    """Saves the state of a `NotFiniteError`, then raises a `UserError` in its place."""
    try:
        yield
    except NotFiniteError as error:
        save(error.state)
        details, or_skip = [], ""
        if error.items is not None:
            details = ["items of the step:", *_names(session, error.items)]
            what = "the loss, a gradient or a running statistic is infinite or NaN after "
            what += position(session, int(error.state.step))
            if session.config.train.on_nan == "skip":
                what += ", the third such step in a row"
            else:
                or_skip = ", or run the same command with train.on_nan=skip"
        elif int(error.state.metrics.count):
            what = f"the validation loss of epoch {error.epoch} is infinite or NaN"
        else:
            what = (
                f"all steps of epoch {error.epoch} were skipped because of infinite or NaN values"
            )
        saved = session.checkpoints.latest_step()
        kept = f"saved up to {position(session, saved)}" if saved else "nothing was saved"
        rate = session.config.train.learning_rate
        raise UserError(
            f"{what} ({kept}); try a smaller train.learning_rate than {rate:g}, in a new "
            f"--workdir{or_skip}",
            details,
        ) from None


def _names(session: Session, items: Int[np.ndarray, " batch"]) -> list[str]:
    """Returns the names of items of the training split."""
    index = session.dataset.indices("train")
    names = [session.dataset.items[index[i]].name for i in items[:MAX_NAMES]]
    more = len(items) - len(names)
    return [*names, f"and {more:,} more"] if more else names
