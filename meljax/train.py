"""The story of a run: read, train, score, report."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from meljax import backend, finish, logs, metrics, progress, runs, scoring, steps, summary, tasks
from meljax.checkpoint import Checkpoints
from meljax.checkpointing import EpochSaver
from meljax.config import Config
from meljax.data import feed
from meljax.data.load import VoiceSet, load, pinned
from meljax.errors import UserError
from meljax.mesh import replicated
from meljax.metrics import Metrics, Row
from meljax.models.initial import check_file, initial_variables
from meljax.paths import cache_dir
from meljax.results import RunResults
from meljax.session import Session
from meljax.state import TrainState
from meljax.steps import Task
from meljax.streams import Stream, key


def train(config: Config, workdir: Path, check: Callable[[], None] = lambda: None) -> None:
    """Trains as `config` says, in `workdir`, from where an earlier session there stopped.

    Args:
      config: the settings.
      workdir: directory of the run.
      check: called at every step; may raise to stop.

    Raises:
      UserError: the data, the directory or the settings do not allow it.
    """
    facts = runs.recorded(workdir)
    config = pinned(config, facts["config"] if facts else {})
    if facts:
        runs.check_same(workdir, facts, config)
        if runs.finished(workdir, facts, config):
            report = workdir / runs.REPORT
            progress.say(f"finished at epoch {config.train.epochs}; report: {report}")
            return
    else:
        check_file(config.model)
    backend.set_up()
    voices = load(config, cache_dir())
    if facts:
        runs.check_same_data(workdir, facts, voices)
    task = tasks.make_task(config, voices)
    # Weights that cannot be had are noticed before anything is written.
    begin = None if facts else _initial(config, task)
    with runs.locked(workdir, facts):
        if begin:
            # First of all: a directory that holds something else, and no record, is no run.
            runs.create(workdir, _facts(config, voices, begin, before=None), voices)
        with contextlib.closing(Checkpoints(workdir / runs.CHECKPOINTS)) as checkpoints:
            begin = begin or _continue(config, task, facts, checkpoints)
            session = Session(
                config=config,
                workdir=workdir,
                facts=_facts(config, voices, begin, before=facts),
                voices=voices,
                task=task,
                sets=tasks.make_device_sets(task, voices),
                checkpoints=checkpoints,
                check=check,
            )
            results = _run(session, begin.state, begin.epochs, continued=bool(facts))
    progress.say(f"{summary.text(results)}\nreport: {workdir / runs.REPORT}")


def _run(session: Session, state: TrainState, done: int, continued: bool) -> RunResults:
    """Trains what is left after `done` epochs and writes the report."""
    history = runs.read_history(session.workdir, done)
    runs.cut_history(session.workdir, done)
    runs.create(session.workdir, session.facts, session.voices)
    _announce(session, continued, done)
    state, history = _run_epochs(session, state, history)
    results = finish.finish(session, state, history)
    finished = {"finished": session.config.train.epochs}
    runs.write_facts(session.workdir, session.facts | finished)
    return results


class Beginning(NamedTuple):
    """Where a session begins: a state, in words how its weights began, and the epochs behind it."""

    state: TrainState
    weights: str
    epochs: int


def _initial(config: Config, task: Task) -> Beginning:
    """Returns the state before the first step."""
    state = steps.init_state(task, key(config.train.seed, Stream.INIT))
    drawn = {"params": state.params, "batch_stats": state.batch_stats}
    variables, weights = initial_variables(config.model, drawn, cache_dir())
    state = state.replace(**jax.device_put(variables, replicated(task.mesh)))
    return Beginning(state, weights, 0)


def _continue(
    config: Config, task: Task, facts: dict[str, Any], checkpoints: Checkpoints
) -> Beginning:
    """Returns the state an earlier session reached."""
    restored = checkpoints.restore_latest(steps.abstract_state(task))
    if not restored:
        return _initial(config, task)
    state, meta = restored
    return Beginning(state, facts["weights"], meta["epoch"])


def _facts(
    config: Config, voices: VoiceSet, begin: Beginning, before: dict[str, Any] | None
) -> dict[str, Any]:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(begin.state.params))
    return runs.describe(config, voices, begin.weights, parameters, before)


def _announce(session: Session, continued: bool, done: int) -> None:
    """Says what is about to be trained on what, and what must not be missed."""
    facts, config = session.facts, session.config
    files = facts["data"]["files"]
    counts = ", ".join(f"{count} {side}" for side, count in files.items() if count)
    kind = {"sound": "recordings", "image": "pictures"}[session.voices.kind]
    progress.say(
        f"data: {len(session.voices.classes)} classes, {sum(files.values())} {kind} "
        f"({counts}); {session.voices.ignored} other files or folders ignored"
    )
    begin = "" if runs.lacks_pretraining(facts) else f", weights began {facts['weights']}"
    progress.say(f"model: {config.model.name}{begin}")
    progress.say(f"device: {facts['device_count']} × {facts['device_kind']}")
    for line in runs.cautions(facts):
        progress.warn(line)
    if continued:
        progress.say(
            f"going on after epoch {done}" if done else "no epoch was saved: beginning anew"
        )


def _run_epochs(
    session: Session, state: TrainState, history: list[Row]
) -> tuple[TrainState, list[Row]]:
    """Trains the epochs that are left. The order of each: train, score, record, keep."""
    config, items = session.config.train, len(session.sets["train"])
    first, val = len(history) + 1, session.sets["val"]
    order = scoring.scoring_order(session.task, val)
    writer = logs.make_writer(session.workdir, int(state.step))
    saver = EpochSaver(session.checkpoints)
    with (
        progress.ending(writer.close),
        contextlib.closing(progress.TrainingBar(config.epochs, items, first)) as bar,
        progress.ending(saver.close),
    ):
        if first == 1:
            _write_beginning(session, writer)
        for epoch in range(first, config.epochs + 1):
            begun = time.perf_counter()
            with jax.transfer_guard_device_to_host("disallow"):
                state, trained = _train_epoch(session, state, epoch, bar)
                trained_at = time.perf_counter()
                scored, _ = scoring.score(session.task, state, val, order)
            trained, scored = metrics.fetch(trained, scored)
            _check_finite(session, trained, epoch)
            _check_finite(session, scored, epoch)
            row = {"epoch": epoch, "step": epoch * feed.steps_per_epoch(items, config.batch_size)}
            row |= _scores("train", trained) | _scores("val", scored)
            row |= {"seconds": time.perf_counter() - begun}
            row |= {"images_per_second": items / (trained_at - begun)}
            runs.append_history(session.workdir, row)
            saver.epoch_done(state, _meta(session, epoch), row)
            history = [*history, row]
            _write_epoch(writer, row, scored)
            bar.epoch_done(row)
    return state, history


def _train_epoch(
    session: Session, state: TrainState, epoch: int, bar: progress.TrainingBar
) -> tuple[TrainState, Metrics]:
    """Takes every training item once; returns the state and the steps' own metrics."""
    task, config = session.task, session.config.train
    data, place = session.sets["train"], replicated(session.task.mesh)
    order_key = key(config.seed, Stream.ORDER, epoch)
    order = feed.epoch_order(order_key, len(data), config.batch_size, task.mesh.size)
    order = jax.device_put(order, place)
    masks_key = jax.device_put(key(config.seed, Stream.AUGMENT), place)
    measured = jax.device_put(Metrics.zero(task.classes), place)
    if backend.steps_in_one_program():
        session.check()
        state, measured = steps.train_epoch(task, state, measured, data, order, masks_key)
        bar.advance(epoch, len(data), jax.block_until_ready(measured))
        return state, measured
    for count in feed.row_counts(len(data), config.batch_size):
        session.check()
        state, measured = steps.train_step(task, state, measured, data, order, masks_key)
        bar.advance(epoch, count, measured)
    return state, jax.block_until_ready(measured)


def _check_finite(session: Session, measured: Metrics, epoch: int) -> None:
    """Raises `UserError` where a loss was infinite or no number, before it is recorded or saved."""
    if measured.first_bad_step != metrics.NEVER:
        rate = session.config.train.learning_rate
        raise UserError(
            f"the loss was no longer a finite number in epoch {epoch}; a smaller "
            f"train.learning_rate than {rate:g} may help, in a new --workdir; the "
            "epochs before are kept"
        )


def _scores(side: str, measured: Metrics) -> Row:
    confusion = np.asarray(measured.confusion)
    return {
        f"{side}_loss": float(measured.loss),
        f"{side}_accuracy": metrics.accuracy(confusion),
        f"{side}_f1": float(metrics.macro_f1(confusion)),
    }


def _write_beginning(session: Session, writer: logs.MetricWriter) -> None:
    writer.write_hparams(session.facts["config"])
    masked = np.stack([example.masked for example in finish.mask_examples(session)])
    writer.write_images(0, {"augmented": masked})


def _write_epoch(writer: logs.MetricWriter, row: Row, scored: Metrics) -> None:
    writer.write_scalars(row["step"], {name: v for name, v in row.items() if name != "step"})
    confusion = logs.confusion_image(np.asarray(scored.confusion))
    writer.write_images(row["step"], {"confusion": confusion})


def _meta(session: Session, epoch: int) -> dict[str, Any]:
    """Returns what a saved model needs to be used, and to be told from others."""
    return {
        "epoch": epoch,
        "config": session.facts["config"],
        "classes": list(session.voices.classes),
        "frontend": dataclasses.asdict(session.task.frontend),
        "weights": session.facts["weights"],
        "versions": session.facts["versions"],
    }
