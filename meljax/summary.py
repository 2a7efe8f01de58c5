"""The scores of a run in a few lines of text."""

from collections.abc import Iterator

from meljax import runs
from meljax.results import RunResults, Scored


def text(results: RunResults) -> str:
    """Returns a line per score, with its 95 % intervals, and one for the calibration."""
    last = results.scores[0].epoch
    lines = [_line(scored, last) for scored in results.scores]
    return "\n".join([*lines, *_calibration(results)])


def _calibration(results: RunResults) -> Iterator[str]:
    """Yields what the temperature changes; nothing where the best weights are gone."""
    for scored in results.scores:
        if scored.chosen and scored.side == "val":
            facts = runs.calibration_facts(scored)
            name = "expected_calibration_error"
            before, after = facts["before"], facts["after"]
            yield (
                f"calibration (best epoch): temperature {scored.temperature:.2f}; loss "
                f"{before['loss']:.3f} without it, {after['loss']:.3f} with it; calibration error "
                f"{before[name]:.1%} without, {after[name]:.1%} with"
            )


def _line(scored: Scored, last: int) -> str:
    side = {"val": "validation", "test": "test"}[scored.side]
    if not scored.chosen:
        which = f"last epoch ({scored.epoch})"
    else:
        on = "the same data" if scored.side == "val" else "the validation set"
        which = f"best epoch ({scored.epoch}), chosen on {on}"
        if scored.epoch == last:
            return f"{which}: the last one, with the {side} scores above"
    return (
        f"{which}: {side} accuracy {with_interval(scored.accuracy, scored.accuracy_interval)}, "
        f"macro-F1 {with_interval(scored.macro_f1, scored.macro_f1_interval)}"
    )


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """Returns a share and its 95 % interval in words."""
    if interval is None:
        return f"{value:.1%} (no interval without a mistake)"
    lower, upper = interval
    return f"{value:.1%} (95 % interval {lower:.1%} to {upper:.1%})"
