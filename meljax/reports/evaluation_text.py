"""The report of `evaluate`, as JSON and as text."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from meljax.data.manifest import Bad
from meljax.evaluation import metrics
from meljax.evaluation.scores import Scored
from meljax.evaluation.statistics import Interval
from meljax.reports.class_scores import most_confused, per_class, worst_first
from meljax.reports.summary import how_measured, percent, with_interval
from meljax.runs.predictions import calibration_of

TOP = (1, 3, 5)
"""Values of k for top-k accuracy."""

CLASS_NUMBERS = ("files", "predicted", "precision", "recall", "f1")
"""The numbers of each class in JSON."""


class Evaluation(NamedTuple):
    """The scores of a trained model on labeled files.

    Attributes:
      run: directory of the run.
      data: description of the files.
      classes: names, in the order of the labels.
      files: (path, class) of each scored file.
      trained_on: number of scored files that are byte-identical to a training file.
      chosen_on: whether the epoch was chosen on the scored files.
      bad: files that could not be used.
    """

    run: str
    data: str
    classes: tuple[str, ...]
    scored: Scored
    files: list[tuple[str, str]]
    trained_on: int
    chosen_on: bool
    bad: list[Bad]

    @property
    def accuracy(self) -> float:
        """The share of files that are right."""
        return self.scored.accuracy

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1."""
        return self.scored.macro_f1

    @property
    def confusion(self) -> Int[np.ndarray, "classes classes"]:
        """The counts of (true class, predicted class), true classes in rows."""
        return self.scored.confusion

    def __repr__(self) -> str:
        return text(self, numbers(self))


def numbers(results: Evaluation) -> dict[str, Any]:
    """Returns all numbers, for JSON."""
    scored, classes = results.scored, results.classes
    probabilities = scored.probabilities
    shares, counted = scored.background_shares, scored.counted
    tops = [k for k in TOP if k < len(classes)]
    calibration, rows = calibration_of(scored), per_class(scored.confusion, classes)
    return {
        "split": scored.split,
        "files": len(results.files),
        "epoch": scored.epoch,
        "classes": list(classes),
        "missing_classes": [row.name for row in rows if not row.files],
        "accuracy": scored.accuracy,
        "groups": _groups(scored),
        "accuracy_interval": scored.accuracy_interval.bounds,
        "accuracy_interval_method": _method(scored.accuracy_interval),
        "macro_f1": scored.macro_f1,
        "macro_f1_interval": scored.macro_f1_interval.bounds,
        "macro_f1_interval_method": _method(scored.macro_f1_interval),
        "background": shares and shares._asdict(),
        "top_k": {
            k: metrics.top_accuracy(probabilities[counted], scored.labels[counted], k) for k in tops
        },
        "temperature": scored.temperature,
        "calibration_note": scored.calibration_note,
        "cross_fitted": calibration.cross_fitted,
        "uncalibrated": dataclasses.asdict(calibration.before),
        **dataclasses.asdict(calibration.after),
        "per_class": {
            row.name: {name: getattr(row, name) for name in CLASS_NUMBERS} for row in rows
        },
        "confusion": scored.confusion.tolist(),
        "items": [
            {
                "path": path,
                "label": label,
                "prediction": classes[row.argmax()],
                "probability": float(row.max()),
                "group": group,
            }
            for (path, label), row, group in zip(
                results.files, probabilities, scored.item_groups.values, strict=True
            )
        ],
        "run": results.run,
        "data": results.data,
        "trained_on": results.trained_on,
        "chosen_on": results.chosen_on,
        "errors": [{"path": bad.path, "error": bad.reason} for bad in results.bad],
    }


def text(results: Evaluation, found: Mapping[str, Any]) -> str:
    """Returns the scores, then a line per class, the lowest F1 first; `found` are the `numbers`."""
    scored = results.scored
    lines = [
        f"{results.run}, epoch {scored.epoch}: {len(results.files):,} files of {results.data}",
        f"accuracy    {with_interval(scored.accuracy, scored.accuracy_interval)}",
        f"macro-F1    {with_interval(scored.macro_f1, scored.macro_f1_interval)}",
        *_background_line(scored),
        *(f"top-{k}       {share:.1%}" for k, share in found["top_k"].items() if k > 1),
        *_calibration_lines(scored, found),
        "",
        *_class_lines(results),
    ]
    if missing := found["missing_classes"]:
        lines.append(
            f"\nclasses without files: {len(missing)} ({', '.join(missing)}); in macro-F1 "
            "each counts as 0 if any file was predicted as it, and is left out otherwise"
        )
    if results.trained_on:
        lines.append(
            f"\nWARNING: the model was trained on {results.trained_on} of these "
            f"{len(results.files)} files; the scores are too high"
        )
    if results.chosen_on:
        lines.append("the epoch was chosen on these files: expect lower scores on new ones")
    return "\n".join(lines)


def _groups(scored: Scored) -> dict[str, Any] | None:
    """Returns what the groups of the items that count are, and their number, if they have any."""
    if not scored.grouped:
        return None
    return {"name": scored.counted_groups.name, "number": scored.counted_groups.number}


def _method(interval: Interval) -> str:
    """Returns 'bootstrap of groups, over 12 speakers', or why there is no interval."""
    return ", ".join(filter(None, (interval.method, interval.note)))


def _calibration_lines(scored: Scored, found: Mapping[str, Any]) -> list[str]:
    """Returns the loss and the calibration error, without and with the temperature."""
    loss, error = found["loss"], f"{found['expected_calibration_error']:.1%} expected error"
    if scored.calibration_note:
        return [
            f"loss        {loss:.3f} nats",
            f"calibration {error}; not calibrated: {scored.calibration_note}",
        ]
    before = found["uncalibrated"]
    return [
        f"loss        {loss:.3f} nats (without the temperature {before['loss']:.3f})",
        f"calibration {error} at temperature {scored.temperature:.2f} "
        f"(without {before['expected_calibration_error']:.1%}); {how_measured(scored)}",
    ]


def _background_line(scored: Scored) -> list[str]:
    shares = scored.background_shares
    return [f"background  {shares.text()}; left out of the overall scores"] if shares else []


def _class_lines(results: Evaluation) -> Iterator[str]:
    """Yields a header, and a line for each class that occurs."""
    confusion, classes = results.scored.confusion, results.classes
    confused = most_confused(confusion)
    width = max(len("class"), *map(len, classes))
    yield f"{'class':{width}}  files  precision  recall     F1  most confused with"
    for row in worst_first(per_class(confusion, classes)):
        if row.f1 is None:
            continue
        precision, recall, f1 = map(percent, (row.precision, row.recall, row.f1))
        line = f"{row.name:{width}}  {row.files:5}  {precision:>9}  {recall:>6}  {f1:>5}"
        if row.number - 1 in confused:
            other, files = confused[row.number - 1]
            line += f"  {classes[other]} ({files})"
        yield line
