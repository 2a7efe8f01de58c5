"""Rows of predictions: values by column."""

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from meljax.evaluation.spans import Span
from meljax.evaluation.status import ERROR, OK, SILENCE

Row = dict[str, Any]
"""Values by column, and `duration`, the length of the whole recording in seconds.

An empty field is `None` or missing.
"""

ALL_DIGITS = 17
"""With this many decimals, numbers are not rounded."""


def columns(top: int, timed: bool) -> list[str]:
    """Returns the columns of rows with `top` classes; `timed`: whether there are times of day."""
    more = range(2, top + 1)
    return [
        *("path", "start", "end"),
        *(["time"] if timed else []),
        *("label", "probability"),
        *(_column(name, k) for k in more for name in ("label", "probability")),
        *("status", "error"),
    ]


def row_of(
    span: Span, classes: Sequence[str], top: int, recorded: datetime.datetime | None = None
) -> Row:
    """Returns the row of a span.

    Args:
      span: the span.
      classes: names of the classes.
      top: number of most probable classes in the row.
      recorded: time at which the recording started, if known.
    """
    row: Row = {"path": span.path, "start": span.start, "end": span.end}
    if recorded is not None:
        # The columns of an image have no known time.
        after = span.start if span.duration is not None else 0.0
        time = recorded + datetime.timedelta(milliseconds=round(1000 * (after or 0.0)))
        row["time"] = time.isoformat(timespec="milliseconds")
    if span.status not in (SILENCE, ERROR):
        order = np.argsort(-span.probabilities, kind="stable")[:top]
        for place, number in enumerate(order, 1):
            row[_column("label", place)] = classes[number]
            row[_column("probability", place)] = float(span.probabilities[number])
        if span.status != OK:
            row["label"] = None
    return row | {"status": span.status, "error": span.error or None, "duration": span.duration}


def _column(name: str, place: int) -> str:
    return name if place == 1 else f"{name}_{place}"


def rounded(row: Row, digits: int | None) -> Row:
    """Returns a row with its numbers rounded to `digits` decimals; `None`: not rounded."""
    if digits is None or digits >= ALL_DIGITS:
        return row
    return {
        name: round(value, digits) if isinstance(value, float) and name != "duration" else value
        for name, value in row.items()
    }
