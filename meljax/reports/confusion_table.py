"""The confusion matrix as a table of all classes, or of the most confused ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from meljax.reports.class_scores import confused_pairs

MOST_CLASSES = 40
"""Maximum number of classes shown; of more classes, the most confused ones are chosen."""


class Cell(NamedTuple):
    """A number of files and its share of the row in percent; `is_right` on the diagonal."""

    count: int
    share: int
    is_right: bool


class ConfusionTable(NamedTuple):
    """Counts of files, with true classes in rows and predicted classes in columns.

    Attributes:
      names: names of the shown classes.
      rows: the cells of each row; `None` for a count of 0.
      others: for each row, the number of files predicted as classes that are not shown.
      complete: whether all classes are shown.
    """

    names: list[str]
    rows: list[list[Cell | None]]
    others: list[int]
    complete: bool


def confusion_table(
    confusion: Int[np.ndarray, "classes classes"], names: Sequence[str]
) -> ConfusionTable:
    """Returns the table of all classes, or of the `MOST_CLASSES` that are confused most."""
    shown = _shown(confusion)
    total = np.maximum(confusion.sum(1), 1)
    part = confusion[np.ix_(shown, shown)]
    shares = np.rint(100 * part / total[shown][:, None]).astype(int)
    rows = [
        [
            Cell(int(count), int(share), row == column) if count else None
            for column, (count, share) in enumerate(zip(counts, percents, strict=True))
        ]
        for row, (counts, percents) in enumerate(zip(part, shares, strict=True))
    ]
    others = (confusion[shown].sum(1) - part.sum(1)).tolist()
    return ConfusionTable([names[i] for i in shown], rows, others, len(shown) == len(names))


def _shown(confusion: Int[np.ndarray, "classes classes"]) -> list[int]:
    """Returns the indices of the shown classes; of many, those in the most frequent pairs."""
    if len(confusion) <= MOST_CLASSES:
        return list(range(len(confusion)))
    found = dict.fromkeys(i for pair in confused_pairs(confusion) for i in pair)
    return list(found)[:MOST_CLASSES]
