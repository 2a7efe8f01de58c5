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
from meljax.data.batches import steps_per_epoch
from meljax.data.dataset import download_set, load, resolve_set
from meljax.evaluation.metrics import Row
from meljax.models import registry
from meljax.models.pretrained.initial_weights import (
    WeightsOrigin,
    check_weights_file,
    initial_variables,
)
from meljax.reports import data_summary, summary
from meljax.runs.directory import (
    CHECKPOINTS,
    REPORT,
    TENSORBOARD,
    check_exists,
    create,
    is_removed,
    locked,
    removal_explained,
)
from meljax.runs.history import append_history, repair_history
from meljax.runs.info import (
    DataInfo,
    RunInfo,
    describe_data,
    describe_run,
    read_info,
)
from meljax.runs.results import RunResults
from meljax.runs.resume import check_resume, check_same_data, is_finished
from meljax.runs.session import Session
from meljax.training import logs
from meljax.training.checkpoint_meta import Meta
from meljax.training.checkpoint_policy import Saver
from meljax.training.checkpoints import Checkpoints
from meljax.training.loop import Start, train_epochs
from meljax.training.memory import check_memory
from meljax.training.progress_bar import TrainingBar
from meljax.training.rng import Stream, key
from meljax.training.state import Task, TrainState, abstract_state, init_state
from meljax.training.task_setup import make_device_sets, make_task
from meljax.util import devices
from meljax.util.devices import replicated
from meljax.util.files import cache_dir
from meljax.util.progress import ending, say, warn
from meljax.util.stop import StopRequest
from meljax.workflows import finish, stops

DRAWING_SECONDS = 60
"""Minimum time between two confusion matrices for TensorBoard, because drawing one takes half a
second. The last epoch always has one."""


def train(
    config: Config,
    workdir: Path,
    stop: StopRequest | None = None,
    epoch_done: Callable[[Row], None] = lambda row: None,
) -> None:
    """Trains in the directory `workdir`, or resumes the run there.

    If a signal arrives, the current step is saved before `stop` raises. `epoch_done` is called with
    the row of each epoch after it was written to `metrics.jsonl`.

    Raises:
      UserError: the data, the directory or the settings cannot be used.
    """
    stop = stop or StopRequest()
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
    begin = None if info else _first_state(config, task)
    new_info = _describe(config, data, begin, before=None) if begin else None
    with locked(workdir, info), in_memory:
        if new_info:
            # Written first: a directory with other files but no `config.json` is not a run.
            create(workdir, new_info, dataset)
        with (
            removal_explained(workdir),
            contextlib.closing(Checkpoints(workdir / CHECKPOINTS)) as checkpoints,
        ):
            begin = begin or _saved_state(config, task, info, checkpoints)
            config = _with_trained_epochs(config, begin)
            session = Session(
                config=config,
                workdir=workdir,
                info=new_info or _describe(config, data, begin, before=info),
                dataset=dataset,
                task=task,
                sets=make_device_sets(task, dataset),
                checkpoints=checkpoints,
            )
            results = _run(session, begin, stop, epoch_done, resumed=bool(info))
    say(f"{summary.text(results)}\nreport: {workdir / REPORT}")


class _Begin(NamedTuple):
    """The state before a session's first step, the origin of the run's initial weights, a row for
    each epoch before it, and the time in s that was already spent on the next epoch."""

    state: TrainState
    weights: WeightsOrigin
    history: tuple[Row, ...] = ()
    seconds: float = 0.0


def _first_state(config: Config, task: Task) -> _Begin:
    """Returns the state before the first step of a run."""
    state = init_state(task, key(config.train.seed, Stream.INIT))
    variables, weights = initial_variables(config.model, state.variables, cache_dir())
    state = state.replace(**jax.device_put(variables, replicated(task.mesh)))
    return _Begin(state, weights)


def _saved_state(config: Config, task: Task, info: RunInfo, checkpoints: Checkpoints) -> _Begin:
    """Returns the last saved state, or the first state if none was saved."""
    restored = checkpoints.restore_latest(abstract_state(task))
    if not restored:
        return _first_state(config, task)
    state, meta = restored
    return _Begin(state, info.weights, meta.history, meta.seconds)


def _with_trained_epochs(config: Config, begin: _Begin) -> Config:
    """Returns `config` with at least the epochs that are already trained."""
    done = len(begin.history)
    if config.train.epochs >= done:
        return config
    say(f"{done} epochs are trained already, not {config.train.epochs}: ending at epoch {done}")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=done))


def _describe(config: Config, data: DataInfo, begin: _Begin, before: RunInfo | None) -> RunInfo:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(begin.state.params))
    if before and before.scored > len(begin.history):  # the scored checkpoint is damaged now
        before = dataclasses.replace(before, scored=0, digests={})
    return describe_run(config, data, begin.weights, parameters, before)


def _run(
    session: Session,
    begin: _Begin,
    stop: StopRequest,
    epoch_done: Callable[[Row], None],
    resumed: bool,
) -> RunResults:
    """Trains the epochs after `begin` and writes the report."""
    repair_history(session.workdir, begin.history, cut=True)
    create(session.workdir, session.info, session.dataset)
    _announce(session, resumed, begin)
    state, history = _train(session, begin, stop, epoch_done)
    check_exists(session.workdir)
    stop.hint = lambda: "all epochs are saved; run the same command again to write the report"
    return finish.finish(session, state, history, finished=len(history))


def _announce(session: Session, resumed: bool, begin: _Begin) -> None:
    """Prints model, device and warnings."""
    info = session.info
    weights = "" if info.lacks_pretraining else f", initial weights: {info.weights.describe()}"
    say(f"model: {session.config.model.name}{weights}")
    say(f"device: {info.session.device_count} × {info.session.device_kind}")
    for line in info.cautions():
        warn(line)
    if resumed:
        step = int(begin.state.step)
        after = f"resuming after {stops.position(session, step)}"
        say(after if step else "nothing was saved: starting over")


def _train(
    session: Session, begin: _Begin, stop: StopRequest, epoch_done: Callable[[Row], None]
) -> tuple[TrainState, list[Row]]:
    """Trains the remaining epochs; records each, and saves it if it is time to, before the next."""
    config, items = session.config.train, len(session.sets["train"])
    state, history = begin.state, begin.history
    saver = Saver(session.checkpoints, _meta(session, begin), config.save_every)
    stop.hint = lambda: stops.resume_hint(session)
    steps = int(state.step) - len(history) * steps_per_epoch(items, config.batch_size)
    done = min(items, steps * config.batch_size)
    if len(history) < config.epochs:
        session.checkpoints.check_writable(state)  # before an epoch is trained that would be lost
    writer = logs.EventLog(session.workdir / TENSORBOARD, session.info.config, int(state.step))
    drawn_at = time.monotonic()

    def step_done(epoch: int, images: int, state: TrainState) -> None:
        saver.step_done(state)
        stop.check()
        bar.step_done(epoch, images, state.metrics)

    def close_saver() -> None:
        if not is_removed(session.workdir):
            with stop.saving():
                saver.close()

    def save(state: TrainState) -> None:
        saver.step_done(state)
        close_saver()

    with (
        ending(writer.close),
        contextlib.closing(TrainingBar(config.epochs, items, len(history) + 1, done)) as bar,
        ending(close_saver),
        stops.bad_values_explained(session, save),
    ):
        if not history:
            masked = np.stack([example.masked for example in finish.mask_examples(session)])
            writer.write_images("train", 0, {"augmented": masked})
        stop.check()
        start = Start(state, len(history), begin.seconds)
        epochs = train_epochs(
            session.task, config, session.sets, start, step_done, stepping=stop.deferred
        )
        for state, row, confusion in epochs:
            history = (*history, row)
            with stop.saving():
                check_exists(session.workdir)
                append_history(session.workdir, row)
                saver.epoch_done(state, row)
                writer.write_scores(row)
                bar.epoch_done(row)
                epoch_done(dict(row))
            if row["epoch"] == config.epochs or time.monotonic() > drawn_at + DRAWING_SECONDS:
                image = _confusion_image(confusion, session.dataset.classes)
                writer.write_images("val", row["step"], {"confusion": image})
                drawn_at = time.monotonic()
        writer.write_completed()
    return state, list(history)


def _meta(session: Session, begin: _Begin) -> Meta:
    """Returns the meta of the state before the session."""
    return Meta(
        config=session.info.config,
        classes=session.dataset.classes,
        frontend=session.task.frontend,
        versions=session.info.session.versions,
        history=begin.history,
        seconds=begin.seconds,
    )


def _confusion_image(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> UInt8[np.ndarray, "1 rows columns 3"]:
    """Returns an image of the confusion matrix, with the names of the classes."""
    # Imported here because it imports matplotlib, which would delay the start of training.
    from meljax.reports import confusion_figure

    figure = confusion_figure.confusion_matrix(confusion, classes)
    return confusion_figure.rendered(figure)[None]
