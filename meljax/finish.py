"""What a trained run leaves: scores, calibration, every prediction, and its report."""

from meljax import progress, runs, scoring
from meljax.checkpoint import rank
from meljax.metrics import Row
from meljax.results import MaskExample, RunResults, Scored
from meljax.session import Session
from meljax.state import TrainState
from meljax.streams import Stream, key


def finish(session: Session, state: TrainState, history: list[Row]) -> RunResults:
    """Scores a trained run item by item and writes all that is told about it.

    Args:
      session: the run.
      state: after the last epoch.
      history: a row per epoch.
    """
    from meljax.pages.run import write_report  # with matplotlib, which a start need not wait for

    results = score(session, state, history)
    runs.write_predictions(session.workdir, results, session.voices)
    runs.write_calibration(session.workdir, results)
    write_report(session.workdir, results, session.workdir)
    return results


def mask_examples(session: Session) -> list[MaskExample]:
    """Returns some training pictures before and after masking."""
    masks_key = key(session.config.train.seed, Stream.AUGMENT, 0)
    return scoring.mask_examples(session.task, session.voices, session.sets["train"], masks_key)


def score(session: Session, state: TrainState, history: list[Row]) -> RunResults:
    """Returns the scores of the last and the best weights, item by item; writes nothing.

    Args:
      session: the run.
      state: after the last epoch.
      history: a row per epoch.
    """
    weights = [(len(history), False, state)]
    best_epoch = max(history, key=rank)["epoch"]
    restored = session.checkpoints.restore_best(state)
    if restored and restored[1]["epoch"] == best_epoch:
        weights.append((best_epoch, True, restored[0]))
    else:
        progress.warn(f"the weights of the best epoch ({best_epoch}) are gone; it is not scored")
    scores = [_scored_sides(session, *each) for each in weights]
    mask = session.config.mask
    return RunResults(
        name=session.workdir.name,
        facts=session.facts,
        classes=session.voices.classes,
        history=history,
        scores=[each[side] for side in ("val", "test") for each in scores if side in each],
        mistakes=scoring.worst_mistakes(
            session.task, state, session.voices, session.sets["val"], scores[0]["val"]
        ),
        mask_examples=mask_examples(session) if mask.freq_count or mask.time_count else [],
    )


def _scored_sides(
    session: Session, epoch: int, chosen: bool, state: TrainState
) -> dict[str, Scored]:
    """Returns the scores of some weights on each side held out, calibrated on the first."""
    scores: dict[str, Scored] = {}
    for side in ("val", "test"):
        if side in session.sets:
            scores[side] = scoring.scored(
                session.task,
                state,
                session.sets[side],
                side=side,
                epoch=epoch,
                chosen=chosen,
                temperature=scores["val"].temperature if scores else None,
            )
    return scores
