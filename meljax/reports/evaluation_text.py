"""The report of `evaluate`: all numbers for JSON, and a text."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from meljax.data.manifest import Bad
from meljax.evaluation import metrics
from meljax.evaluation.scores import Scored
from meljax.reports.summary import with_interval
from meljax.runs.predictions import calibration_of

TOP = (1, 3, 5)
"""Values of k for top-k accuracy."""


class Evaluation(NamedTuple):
    """The scores of a trained model on labeled files.

    Attributes:
      run: directory of the run.
      data: description of the files.
      classes: names, in the order of the labels.
      files: (path, class) of each scored file.
      trained_on: number of scored files that are byte-identical to a training file.
      bad: files that could not be used.
    """

    run: str
    data: str
    classes: tuple[str, ...]
    scored: Scored
    files: list[tuple[str, str]]
    trained_on: int
    bad: list[Bad]


def numbers(results: Evaluation) -> dict[str, Any]:
    """Returns all numbers, for JSON."""
    scored, classes = results.scored, results.classes
    probabilities = scored.probabilities
    tops = [k for k in TOP if k < len(classes)]
    calibration = calibration_of(scored)
    return {
        "split": scored.split,
        "files": len(results.files),
        "epoch": scored.epoch,
        "classes": list(classes),
        "missing_classes": _missing_classes(results),
        "accuracy": scored.accuracy,
        "accuracy_interval": scored.accuracy_interval,
        "macro_f1": scored.macro_f1,
        "macro_f1_interval": scored.macro_f1_interval,
        "top_k": {k: metrics.top_accuracy(probabilities, scored.labels, k) for k in tops},
        "temperature": scored.temperature,
        "uncalibrated": dataclasses.asdict(calibration.before),
        **dataclasses.asdict(calibration.after),
        "per_class": _per_class(results),
        "confusion": scored.confusion.tolist(),
        "items": [
            {
                "path": path,
                "label": label,
                "prediction": classes[row.argmax()],
                "probability": float(row.max()),
            }
            for (path, label), row in zip(results.files, probabilities, strict=True)
        ],
        "run": results.run,
        "data": results.data,
        "trained_on": results.trained_on,
        "errors": [{"path": bad.path, "error": bad.reason} for bad in results.bad],
    }


def _missing_classes(results: Evaluation) -> list[str]:
    counts = results.scored.confusion.sum(1)
    return [name for name, n in zip(results.classes, counts, strict=True) if not n]


def _per_class(results: Evaluation) -> dict[str, dict[str, Any]]:
    """Returns each class's numbers; `None` where a denominator is 0."""
    confusion = results.scored.confusion
    precision, recall, f1 = metrics.class_scores(confusion)
    predicted, true = confusion.sum(0).tolist(), confusion.sum(1).tolist()
    return {
        name: {
            "files": true[i],
            "predicted": predicted[i],
            "precision": float(precision[i]) if predicted[i] else None,
            "recall": float(recall[i]) if true[i] else None,
            "f1": float(f1[i]) if true[i] or predicted[i] else None,
        }
        for i, name in enumerate(results.classes)
    }


def text(results: Evaluation, found: Mapping[str, Any]) -> str:
    """Returns the scores, then a line per class, the lowest F1 first; `found` are the `numbers`."""
    scored, before = results.scored, found["uncalibrated"]
    lines = [
        f"{results.run}, epoch {scored.epoch}: {len(results.files):,} files of {results.data}",
        f"accuracy    {with_interval(scored.accuracy, scored.accuracy_interval)}",
        f"macro-F1    {with_interval(scored.macro_f1, scored.macro_f1_interval)}",
        *(f"top-{k}       {share:.1%}" for k, share in found["top_k"].items() if k > 1),
        f"loss        {found['loss']:.3f} nats (without the temperature {before['loss']:.3f})",
        f"calibration {found['expected_calibration_error']:.1%} expected error at temperature "
        f"{scored.temperature:.2f} (without {before['expected_calibration_error']:.1%})",
        "",
        *_class_lines(results, found["per_class"]),
    ]
    if missing := found["missing_classes"]:
        lines.append(
            f"\nclasses without files: {len(missing)} ({', '.join(missing)}); in macro-F1 each "
            "counts as 0 if a file was predicted as it, else not at all"
        )
    if results.trained_on:
        lines.append(
            f"\nWARNING: the model was trained on {results.trained_on} of these "
            f"{len(results.files)} files; the scores are too high"
        )
    return "\n".join(lines)


def _class_lines(results: Evaluation, per_class: Mapping[str, Any]) -> list[str]:
    """Returns a header, and a line for each class that occurs."""
    width = max(len("class"), *map(len, results.classes))
    lines = [f"{'class':{width}}  files  precision  recall     F1  most confused with"]
    rows = {name: row for name, row in per_class.items() if row["f1"] is not None}
    for name, row in sorted(rows.items(), key=lambda pair: pair[1]["f1"]):
        shares = "  ".join(
            f"{'–' if row[key] is None else format(row[key], '.1%'):>{space}}"
            for key, space in (("precision", 9), ("recall", 6), ("f1", 5))
        )
        confused = _most_confused(results, name)
        lines.append(f"{name:{width}}  {row['files']:5}  {shares}  {confused}".rstrip())
    return lines


def _most_confused(results: Evaluation, name: str) -> str:
    """Returns the most frequent wrong prediction for files of class `name`, and its count."""
    own = results.classes.index(name)
    row = results.scored.confusion[own].copy()
    row[own] = 0
    return f"{results.classes[int(np.argmax(row))]} ({row.max()})" if row.any() else ""
