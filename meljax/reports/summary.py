"""The scores of a run in a few lines of text."""

from meljax.evaluation.scores import Scored
from meljax.evaluation.statistics import Interval
from meljax.runs.predictions import calibration_of
from meljax.runs.results import RunResults
from meljax.util.phrases import count


def text(results: RunResults) -> str:
    """Returns a line of scores per epoch and split, with 95 % intervals, and one on calibration."""
    last = results.scores[0].epoch
    lines = [_line(scored, last) for scored in results.scores]
    best = [each for each in results.scores if each.chosen and each.split == "val"]
    background = [
        f"background (best epoch): {each.background_shares.text()}"
        for each in best
        if each.background_shares
    ]
    return "\n".join([*lines, *background, *map(_calibration, best)])


def _line(scored: Scored, last: int) -> str:
    split = {"val": "validation", "test": "test"}[scored.split]
    if not scored.chosen:
        weights = f"last epoch ({scored.epoch})"
    else:
        on = "the same data" if scored.split == "val" else "the validation set"
        weights = f"best epoch ({scored.epoch}), chosen on {on}"
        if scored.epoch == last:
            return f"{weights}: same as the last epoch, {split} scores above"
    return (
        f"{weights}: {split} accuracy {with_interval(scored.accuracy, scored.accuracy_interval)}, "
        f"macro-F1 {with_interval(scored.macro_f1, scored.macro_f1_interval)}"
    )


def _calibration(best: Scored) -> str:
    measured = calibration_of(best)
    before, after = measured.before, measured.after
    if measured.note:
        return (
            f"calibration (best epoch): not calibrated: {measured.note}; loss {before.loss:.3f}, "
            f"calibration error {before.expected_calibration_error:.1%}"
        )
    return (
        f"calibration (best epoch): temperature {measured.temperature:.2f}; loss "
        f"{before.loss:.3f} without it, {after.loss:.3f} with it; calibration error "
        f"{before.expected_calibration_error:.1%} without, "
        f"{after.expected_calibration_error:.1%} with ({how_measured(best)})"
    )


def how_measured(scored: Scored) -> str:
    """Returns in words how a fitted temperature was measured."""
    if scored.cross_fitted:
        return "cross-fitted"
    if not scored.fitted_here:
        return "on files that the temperature was not fitted to"
    groups = scored.counted_groups
    number = groups.text() if scored.grouped else count(groups.number, "file")
    return f"on the files that the temperature was fitted to; {number}: too few for cross-fitting"


def percent(share: float | None) -> str:
    """Returns '98.0%'; '–' if there is no share."""
    return "–" if share is None else f"{share:.1%}"


def with_interval(value: float, interval: Interval) -> str:
    """Returns '98.0% (95 % interval over 12 speakers: 95.3% to 99.1%)', or why there is none."""
    if interval.bounds is None:
        return f"{value:.1%} ({interval.note})"
    lower, upper = interval.bounds
    over = f" {interval.note}:" if interval.note else ""
    return f"{value:.1%} (95 % interval{over} {lower:.1%} to {upper:.1%})"
