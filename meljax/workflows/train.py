"""Trains a run: reads the data, trains, scores and reports."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8

from meljax.config import Config
from meljax.data.dataset import download_set, load, resolve_set
from meljax.evaluation.metrics import Metrics, Row
from meljax.models import registry
from meljax.models.pretrained.initial_weights import (
    WeightsOrigin,
    check_weights_file,
    initial_variables,
)
from meljax.reports import data_summary, summary
from meljax.runs.directory import CHECKPOINTS, REPORT, TENSORBOARD, create, locked
from meljax.runs.history import append_history, cut_history, read_history
from meljax.runs.info import (
    DataInfo,
    RunInfo,
    describe_data,
    describe_run,
    read_info,
    write_info,
)
from meljax.runs.results import RunResults
from meljax.runs.resume import check_resume, check_same_data, is_finished
from meljax.runs.session import Session
from meljax.training import logs
from meljax.training.checkpoint_policy import EpochSaver
from meljax.training.checkpoints import Checkpoints, Meta
from meljax.training.loop import train_epochs
from meljax.training.memory import check_memory
from meljax.training.progress_bar import TrainingBar
from meljax.training.rng import Stream, key
from meljax.training.state import Task, TrainState, abstract_state, init_state
from meljax.training.task_setup import make_device_sets, make_task
from meljax.util import devices
from meljax.util.devices import replicated
from meljax.util.files import cache_dir
from meljax.util.progress import ending, say, warn
from meljax.workflows import finish

DRAWING_SECONDS = 60
"""Minimum time between two confusion matrices for TensorBoard, because drawing one takes half a
second. The last epoch always has one."""


def train(
    config: Config,
    workdir: Path,
    check: Callable[[], None] = lambda: None,
    epoch_done: Callable[[Row], None] = lambda row: None,
) -> None:
    """Trains in the directory `workdir`, or resumes the run there.

    `check` is called at every step and may raise to stop. `epoch_done` is called with the row of
    each epoch after it was saved.

    Raises:
      UserError: the data, the directory or the settings cannot be used.
    """
    # Cheap checks come first, before anything is downloaded or decoded.
    registry.check(config.model)
    info = read_info(workdir)
    config = resolve_set(config, info.config if info else {})
    if info:
        check_resume(workdir, info, config)
    else:
        check_weights_file(config.model)
    config = download_set(config)
    dataset = load(config, cache_dir())
    if info:
        check_same_data(workdir, info, dataset)
        if is_finished(workdir, info, config):
            say(f"finished at epoch {info.finished}; report: {workdir / REPORT}")
            return
    devices.set_up()
    task = make_task(config, dataset)
    data = describe_data(config, dataset, task.frontend)
    say(data_summary.text(data))
    in_memory = check_memory(task, dataset, config.train.batch_size)
    # If the weights cannot be downloaded or read, this fails before anything is written.
    start = None if info else _first_state(config, task)
    with locked(workdir, info), in_memory:
        if start:
            # Written first: a directory with other files but no record is not a run.
            create(workdir, _describe(config, data, start, before=None), dataset)
        with contextlib.closing(Checkpoints(workdir / CHECKPOINTS)) as checkpoints:
            start = start or _saved_state(config, task, info, checkpoints)
            config = _with_trained_epochs(config, start.epochs)
            session = Session(
                config=config,
                workdir=workdir,
                info=_describe(config, data, start, before=info),
                dataset=dataset,
                task=task,
                sets=make_device_sets(task, dataset),
                checkpoints=checkpoints,
                check=check,
            )
            results = _run(session, start, epoch_done, resumed=bool(info))
    say(f"{summary.text(results)}\nreport: {workdir / REPORT}")


class _Start(NamedTuple):
    """The state before a session's first step, its origin, and the number of epochs before it."""

    state: TrainState
    weights: WeightsOrigin
    epochs: int


def _first_state(config: Config, task: Task) -> _Start:
    """Returns the state before the first step of a run."""
    state = init_state(task, key(config.train.seed, Stream.INIT))
    variables, weights = initial_variables(config.model, state.variables, cache_dir())
    state = state.replace(**jax.device_put(variables, replicated(task.mesh)))
    return _Start(state, weights, 0)


def _saved_state(config: Config, task: Task, info: RunInfo, checkpoints: Checkpoints) -> _Start:
    """Returns the last saved state, or the first state if none was saved."""
    restored = checkpoints.restore_latest(abstract_state(task))
    if not restored:
        return _first_state(config, task)
    state, meta = restored
    return _Start(state, info.weights, meta.epoch)


def _with_trained_epochs(config: Config, done: int) -> Config:
    """Returns `config` with at least the `done` epochs that are already trained."""
    if config.train.epochs >= done:
        return config
    say(f"{done} epochs are trained already, not {config.train.epochs}: ending at epoch {done}")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=done))


def _describe(config: Config, data: DataInfo, start: _Start, before: RunInfo | None) -> RunInfo:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(start.state.params))
    return describe_run(config, data, start.weights, parameters, before)


def _run(
    session: Session, start: _Start, epoch_done: Callable[[Row], None], resumed: bool
) -> RunResults:
    """Trains the epochs after `start` and writes the report."""
    done = start.epochs
    history = read_history(session.workdir, done)
    cut_history(session.workdir, done)
    create(session.workdir, session.info, session.dataset)
    _announce(session, resumed, done)
    state, history = _train(session, start.state, history, epoch_done)
    results = finish.finish(session, state, history)
    info = dataclasses.replace(session.info, finished=session.config.train.epochs)
    write_info(session.workdir, info)
    return results


def _announce(session: Session, resumed: bool, done: int) -> None:
    """Prints model, device and warnings."""
    info = session.info
    weights = "" if info.lacks_pretraining else f", initial weights: {info.weights.describe()}"
    say(f"model: {session.config.model.name}{weights}")
    say(f"device: {info.session.device_count} × {info.session.device_kind}")
    for line in info.cautions():
        warn(line)
    if resumed:
        say(f"resuming after epoch {done}" if done else "no epoch was saved: starting over")


def _train(
    session: Session,
    state: TrainState,
    history: list[Row],
    epoch_done: Callable[[Row], None],
) -> tuple[TrainState, list[Row]]:
    """Trains the remaining epochs, and records and saves each before the next one starts."""
    config, items = session.config.train, len(session.sets["train"])
    first = len(history) + 1
    writer = logs.EventLog(session.workdir / TENSORBOARD, session.info.config, int(state.step))
    drawn_at = time.monotonic()
    saver = EpochSaver(session.checkpoints)
    with (
        ending(writer.close),
        contextlib.closing(TrainingBar(config.epochs, items, first)) as bar,
        ending(saver.close),
    ):
        if first == 1:
            masked = np.stack([example.masked for example in finish.mask_examples(session)])
            writer.write_images("train", 0, {"augmented": masked})

        def step_done(epoch: int, images: int, measured: Metrics) -> None:
            session.check()
            bar.step_done(epoch, images, measured)

        session.check()
        for epoch in train_epochs(session.task, config, session.sets, state, first, step_done):
            state, row = epoch.state, epoch.row
            history = [*history, row]
            append_history(session.workdir, row)
            meta = Meta(
                epoch=row["epoch"],
                config=session.info.config,
                classes=session.dataset.classes,
                frontend=session.task.frontend,
                versions=session.info.session.versions,
            )
            saver.epoch_done(state, meta, row)
            writer.write_scores(row)
            if row["epoch"] == config.epochs or time.monotonic() > drawn_at + DRAWING_SECONDS:
                image = _confusion_image(epoch.confusion, session.dataset.classes)
                writer.write_images("val", row["step"], {"confusion": image})
                drawn_at = time.monotonic()
            bar.epoch_done(row)
            epoch_done(dict(row))
        writer.write_completed()
    return state, history


def _confusion_image(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> UInt8[np.ndarray, "1 rows columns 3"]:
    """Returns an image of the confusion matrix, with the names of the classes."""
    # Imported here because it imports matplotlib, which would delay the start of training.
    from meljax.reports import confusion_figure

    figure = confusion_figure.confusion_matrix(confusion, classes)
    return confusion_figure.rendered(figure)[None]
