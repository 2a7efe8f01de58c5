"""The story of a run: read, train, score, report."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from meljax import logs, metrics, models, optim, progress, runs, scoring, steps, summary
from meljax.checkpoint import Checkpoints
from meljax.config import Config
from meljax.data import feed
from meljax.data.load import Side, VoiceSet, load
from meljax.errors import UserError
from meljax.frontend import Frontend
from meljax.mesh import make_mesh, replicated
from meljax.metrics import Metrics, Row
from meljax.models.initial import initial_variables
from meljax.paths import cache_dir, use_compilation_cache
from meljax.report import write_report
from meljax.results import MaskExample, Mistake, RunResults, Scored
from meljax.state import TrainState
from meljax.steps import Task
from meljax.streams import Stream, key

MISTAKES = 24
MASK_EXAMPLES = 4


class Session(NamedTuple):
    """All that stays fixed while a run trains."""

    config: Config
    workdir: Path
    facts: dict[str, Any]
    voices: VoiceSet
    task: Task
    sets: dict[Side, feed.DeviceSet]
    orders: dict[Side, Int[Array, "steps batch"]]
    checkpoints: Checkpoints


def train(config: Config, workdir: Path) -> None:
    """Trains as `config` says, in `workdir`, from where an earlier session there stopped.

    Raises:
      UserError: the data, the directory or the settings do not allow it.
    """
    facts = runs.recorded(workdir)
    if facts:
        runs.check_same(workdir, facts, config)
        if runs.finished(facts, config):
            report = workdir / runs.REPORT
            progress.say(f"finished: {config.train.epochs} epochs; report: {report}")
            return
    use_compilation_cache()
    voices = load(config, cache_dir())
    if facts:
        runs.check_same_data(workdir, facts, voices)
    session, state, history = _begin(config, workdir, voices, facts)
    with contextlib.closing(session.checkpoints):
        _announce(session, len(history))
        state, history = _run_epochs(session, state, history)
        session.checkpoints.wait()
        results = _results(session, state, history)
    report = write_report(workdir, results)
    runs.write_facts(workdir, session.facts | {"finished": config.train.epochs})
    progress.say(f"{summary.text(results)}\nreport: {report}")


def make_task(config: Config, voices: VoiceSet) -> Task:
    """Returns what stays fixed: network, front end, masks, optimiser, devices."""
    sound = voices.kind == "sound"
    _, height, channels = (0, 0, 1) if sound else voices.arrays[0].shape
    frontend = Frontend(
        kind=voices.kind,
        window=_window(config, voices),
        height=height,
        channels=channels,
        image_size=config.data.image_size,
        mel=config.mel,
    )
    network = models.build(config.model, len(voices.classes))
    optimiser = optim.optimiser(config.train, len(voices.indices("train")))
    return Task(network, frontend, config.mask, optimiser, len(voices.classes), make_mesh())


def _window(config: Config, voices: VoiceSet) -> int:
    """Returns the window's length in samples or columns."""
    lengths = [len(voices.arrays[i]) for i in voices.indices("train")]
    if config.data.window == 0:
        return int(np.median(lengths))
    unit, name = (1, "columns") if voices.kind == "image" else (config.mel.sample_rate, "seconds")
    window = round(config.data.window * unit)
    longest = max(lengths)
    if not 1 <= window <= 10 * longest:
        raise UserError(f"data.window must be at most ten times the longest item "
                        f"({longest / unit:g} {name}), not {config.data.window:g}")  # fmt: skip
    return window


def make_device_set(task: Task, voices: VoiceSet, side: Side) -> feed.DeviceSet:
    """Places the items of `side` on every device."""
    index = voices.indices(side)
    return feed.make_device_set(
        [voices.arrays[i] for i in index],
        voices.floors and [voices.floors[i] for i in index],
        voices.labels(index),
        replicated(task.mesh),
    )


def _begin(
    config: Config, workdir: Path, voices: VoiceSet, facts: dict[str, Any] | None
) -> tuple[Session, TrainState, list[Row]]:
    """Returns the session, and the state and history that it starts from."""
    task = make_task(config, voices)
    state = steps.init_state(task, key(config.train.seed, Stream.INIT))
    folder, restored = workdir / runs.CHECKPOINTS, None
    if facts:
        checkpoints = Checkpoints(folder)
        restored = checkpoints.restore_latest(state)
    if restored:
        state, meta = restored
        weights, done = facts["weights"], meta["epoch"]
    else:
        state, weights = _initial(config, task, state)
        done = 0
    facts = runs.describe(config, voices, weights)
    runs.create(workdir, facts, voices)
    history = runs.read_history(workdir, done)
    sides = [side for side in ("train", "val", "test") if side in voices.sides]
    sets = {side: make_device_set(task, voices, side) for side in sides}
    orders = {side: scoring.scoring_order(task, len(sets[side])) for side in sides}
    checkpoints = checkpoints if restored else Checkpoints(folder)
    session = Session(config, workdir, facts, voices, task, sets, orders, checkpoints)
    return session, state, history


def _initial(config: Config, task: Task, state: TrainState) -> tuple[TrainState, str]:
    """Returns `state` with the weights to begin with, and in words how they began."""
    drawn = {"params": state.params, "batch_stats": state.batch_stats}
    variables, weights = initial_variables(config.model, drawn, cache_dir())
    return state.replace(**jax.device_put(variables, replicated(task.mesh))), weights


def _announce(session: Session, done: int) -> None:
    """Says what is about to be trained on what, and what must not be missed."""
    facts, config = session.facts, session.config
    files = facts["data"]["files"]
    counts = ", ".join(f"{count} {side}" for side, count in files.items() if count)
    kind = {"sound": "recordings", "image": "pictures"}[session.voices.kind]
    progress.say(f"data: {len(session.voices.classes)} classes, {sum(files.values())} {kind} "
                 f"({counts}); {session.voices.ignored} other files ignored")  # fmt: skip
    progress.say(f"model: {config.model.name}, weights {facts['weights']}")
    progress.say(f"device: {facts['device_count']} × {facts['device_kind']}")
    if done:
        progress.say(f"going on after epoch {done}")
    for line in runs.cautions(facts):
        progress.warn(line)


def _run_epochs(
    session: Session, state: TrainState, history: list[Row]
) -> tuple[TrainState, list[Row]]:
    """Trains the epochs that are left. The order of each: train, score, record, save."""
    config, items = session.config.train, len(session.sets["train"])
    writer = logs.make_writer(session.workdir, int(state.step))
    if not history:
        writer.write_hparams(session.facts["config"])
        writer.write_images(0, {"augmented": _mask_examples(session)[1]})
    done = _epochs_done(session, state)
    bar = progress.TrainingBar(config.epochs, items, done)
    for epoch in range(done + 1, config.epochs + 1):
        begun = time.perf_counter()
        state, trained = _train_epoch(session, state, epoch, bar)
        seconds = time.perf_counter() - begun
        scored, _ = scoring.score(session.task, state, session.sets["val"], session.orders["val"])
        scored = jax.device_get(scored)
        row = {"epoch": epoch, "step": int(state.step)}
        row |= _scores("train", trained) | _scores("val", scored)
        row |= {"seconds": time.perf_counter() - begun, "images_per_second": items / seconds}
        runs.append_history(session.workdir, row)
        session.checkpoints.save(state, _meta(session, epoch), row)
        history = [*history, row]
        writer.write_scalars(row["step"], {k: v for k, v in row.items() if k != "step"})
        confusion = logs.confusion_image(scored.confusion.counts)
        writer.write_images(row["step"], {"confusion": confusion})
        bar.epoch_done(row)
    bar.close()
    writer.close()
    return state, history


def _train_epoch(
    session: Session, state: TrainState, epoch: int, bar: progress.TrainingBar
) -> tuple[TrainState, Metrics]:
    """Takes every training item once; returns the state and the steps' own metrics, on the host.

    A Python loop: on a CPU, XLA runs a scan over training steps many times slower.
    """
    task, config = session.task, session.config.train
    data, place = session.sets["train"], replicated(session.task.mesh)
    order_key = key(config.seed, Stream.ORDER, epoch)
    order = feed.epoch_order(order_key, len(data), config.batch_size, task.mesh.size)
    counts = (order != feed.PADDING).sum(1)
    order = jax.device_put(order, place)
    masks_key = jax.device_put(key(config.seed, Stream.AUGMENT), place)
    measured = jax.device_put(Metrics.zero(task.classes), place)
    for count in counts:
        state, measured = steps.train_step(task, state, measured, data, order, masks_key)
        bar.advance(epoch, int(count), measured)
    measured = jax.device_get(measured)
    if measured.first_bad_step.step != metrics.NEVER:
        raise UserError(f"the loss was no longer a finite number at step "
                        f"{measured.first_bad_step.step} (epoch {epoch}): a smaller "
                        f"train.learning_rate than {config.learning_rate:g} may help; "
                        "the epochs before are kept")  # fmt: skip
    return state, measured


def _epochs_done(session: Session, state: TrainState) -> int:
    """Returns how many epochs `state` has behind it."""
    per_epoch = -(-len(session.sets["train"]) // session.config.train.batch_size)
    return int(state.step) // per_epoch


def _scores(side: str, measured: Metrics) -> Row:
    confusion = np.asarray(measured.confusion.counts)
    return {
        f"{side}_loss": float(measured.loss.compute()),
        f"{side}_accuracy": metrics.accuracy(confusion),
        f"{side}_f1": float(metrics.macro_f1(confusion)),
    }


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


def _results(session: Session, state: TrainState, history: list[Row]) -> RunResults:
    """Scores the last and the best weights once more, item by item, for the report."""
    best, meta = session.checkpoints.restore_best(state)
    last_epoch = _epochs_done(session, state)
    weights = [(last_epoch, False, state), (meta["epoch"], True, best)]
    scores = [
        _scored(session, side, *which)
        for side in ("val", "test")
        if side in session.sets
        for which in weights
    ]
    return RunResults(
        name=session.workdir.name,
        facts=session.facts,
        classes=session.voices.classes,
        history=history,
        scores=scores,
        mistakes=_mistakes(session, scores[0]),
        mask_examples=_mask_examples(session)[0],
    )


def _scored(session: Session, side: Side, epoch: int, chosen: bool, state: TrainState) -> Scored:
    data = session.sets[side]
    measured, logits = scoring.score(session.task, state, data, session.orders[side])
    return Scored(
        side=side,
        epoch=epoch,
        chosen=chosen,
        loss=float(measured.loss.compute()),
        probabilities=scoring.probabilities(logits, len(data)),
        labels=np.asarray(data.label),
    )


def _mistakes(session: Session, scored: Scored) -> list[Mistake]:
    """Returns the mistakes that were made with the greatest confidence, pictures included."""
    wrong = np.flatnonzero(scored.predictions != scored.labels)
    confidence = scored.probabilities.max(-1)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(worst):
        return []
    pictures = scoring.seen_pictures(session.task, session.sets["val"], worst)
    items = [session.voices.items[session.voices.indices("val")[i]] for i in worst]
    classes = session.voices.classes
    return [
        Mistake(
            path=item.path,
            label=item.label,
            prediction=classes[scored.predictions[i]],
            probability=float(confidence[i]),
            picture=picture,
        )
        for i, item, picture in zip(worst, items, pictures, strict=True)
    ]


def _mask_examples(session: Session) -> tuple[list[MaskExample], np.ndarray]:
    """Returns training pictures before and after masking, and the masked ones as a batch.

    Where the masks are off, there are no pairs to show.
    """
    index = np.linspace(0, len(session.sets["train"]) - 1, MASK_EXAMPLES).astype(np.int32)
    masks_key = key(session.config.train.seed, Stream.AUGMENT, 0)
    clean, masked = scoring.masked_pictures(session.task, session.sets["train"], index, masks_key)
    train = session.voices.indices("train")
    items = [session.voices.items[train[i]] for i in index]
    examples = [
        MaskExample(item.path, item.label, before, after)
        for item, before, after in zip(items, clean, masked, strict=True)
    ]
    mask = session.config.mask
    return examples if mask.freq_count or mask.time_count else [], masked
