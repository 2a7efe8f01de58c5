"""Finishes a trained run: scores, predictions, calibration and the report."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Key

from meljax.data.batches import DeviceSet
from meljax.data.dataset import Dataset
from meljax.evaluation.coverage import probe
from meljax.evaluation.groups import groups_of
from meljax.evaluation.metrics import Row
from meljax.evaluation.mistakes import Mistake, worst_mistakes
from meljax.evaluation.scores import Scored, score_weights
from meljax.runs.digests import with_digests
from meljax.runs.history import best_epoch
from meljax.runs.info import write_info
from meljax.runs.predictions import write_calibration, write_predictions
from meljax.runs.results import MaskExample, RunResults
from meljax.runs.session import Session
from meljax.training.augmentation import train_images
from meljax.training.rng import Stream, key
from meljax.training.state import Task, TrainState, model_of
from meljax.util.devices import jit
from meljax.util.progress import warn

MASK_EXAMPLES = 4
"""Number of training images shown before and after masking."""

masked_images = jit(train_images, static_argnames="task")
"""The compiled `train_images`."""


def finish(session: Session, state: TrainState, history: list[Row], finished: int) -> RunResults:
    """Scores a trained run, given the state after its last epoch, and writes all results.

    `finished` is the number of epochs when the run was last completed; 0: never.
    """
    # Imported here because it imports matplotlib, which would delay the start of training.
    from meljax.reports.run_page import write_report

    results = score(session, state, history)
    write_predictions(session.workdir, results, session.dataset)
    write_calibration(session.workdir, results)
    write_report(session.workdir, results, session.workdir)
    info = dataclasses.replace(session.info, finished=finished)
    write_info(session.workdir, with_digests(session.workdir, info, len(history)))
    return results


def score(session: Session, state: TrainState, history: list[Row]) -> RunResults:
    """Returns the scores of the last and the best weights; `state` is that of the last epoch."""
    weights = [(len(history), False, state)]
    best = best_epoch(history)
    restored = session.checkpoints.restore_best(state)
    if restored and restored[1].epoch == best:
        weights.append((best, True, restored[0]))
    else:
        warn(f"the weights of the best epoch ({best}) are lost; it is not scored")
    scores = [_score_held_out(session, *each) for each in weights]
    mask = session.config.mask
    states = [each[-1] for each in weights]
    mistakes, last_mistakes = _mistakes(session, states, [each["val"] for each in scores])
    return RunResults(
        name=session.workdir.name,
        info=session.info,
        frontend=session.task.frontend,
        classes=session.dataset.classes,
        history=history,
        scores=[each[split] for split in ("val", "test") for each in scores if split in each],
        mistakes=mistakes,
        last_mistakes=last_mistakes,
        mask_examples=mask_examples(session) if mask.freq_count or mask.time_count else [],
        probes=probe(model_of(session.task, states[-1]), scores[-1]["val"].temperature),
    )


def _mistakes(
    session: Session, states: Sequence[TrainState], scores: Sequence[Scored]
) -> tuple[list[Mistake], list[Mistake]]:
    """Returns `mistakes` and `last_mistakes` of `RunResults`.

    `states` and their `scores` are those of the last and, if it is not lost, the best epoch.
    """

    def worst(state: TrainState, scored: Scored, known: Scored | None = None) -> list[Mistake]:
        model, data = model_of(session.task, state), session.sets["val"]
        return worst_mistakes(model, session.dataset, data, scored, known=known)

    last, best = scores[0], scores[-1]
    shown = worst(states[-1], best)
    return shown, [] if last.epoch == best.epoch else worst(states[0], last, best)


def _score_held_out(
    session: Session, epoch: int, chosen: bool, state: TrainState
) -> dict[str, Scored]:
    """Returns the scores of `state` on 'val' and 'test', calibrated on 'val'."""
    scores: dict[str, Scored] = {}
    for split in ("val", "test"):
        data = session.sets.get(split)
        # A test split may hold the background alone.
        if data and not np.isin(np.asarray(data.label), session.task.unscored).all():
            items = [session.dataset.items[i] for i in session.dataset.indices(split)]
            scores[split] = score_weights(
                model_of(session.task, state),
                data,
                split=split,
                epoch=epoch,
                chosen=chosen,
                temperature=scores["val"].chosen_temperature if scores else None,
                unscored=session.task.unscored,
                background=session.task.background,
                groups=groups_of(items, session.config.data.group),
            )
    return scores


def mask_examples(session: Session) -> list[MaskExample]:
    """Returns examples of training images before and after masking."""
    masks_key = key(session.config.train.seed, Stream.AUGMENT, 0)
    return examples_of(session.task, session.dataset, session.sets["train"], masks_key)


def examples_of(
    task: Task, dataset: Dataset, data: DeviceSet, masks_key: Key[Array, ""]
) -> list[MaskExample]:
    """Returns evenly spaced items of the training split, `data`, before and after masking."""
    index = np.linspace(0, len(data) - 1, MASK_EXAMPLES).astype(np.int32)
    train = dataset.indices("train")
    items = [dataset.items[train[i]] for i in index]
    clean, masked = jax.device_get(masked_images(task, data, index, masks_key))
    return [
        MaskExample(item.name, item.label, before, after)
        for item, before, after in zip(items, clean, masked, strict=True)
    ]
