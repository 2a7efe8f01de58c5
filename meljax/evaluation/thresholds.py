"""Thresholds of classes: less probable predictions are unknown."""

import math
from typing import NamedTuple

import numpy as np

from meljax.evaluation.scores import Scores


class Threshold(NamedTuple):
    """The threshold of a class, and the items that it was chosen on.

    Attributes:
      value: predictions of the class with at least this probability are kept.
      items: number of items that were predicted as the class.
      kept: number of these with at least the probability `value`.
      right: number of the kept items that belong to the class.
    """

    value: float
    items: int
    kept: int
    right: int


def precision_thresholds(scores: Scores, precision: float) -> list[Threshold]:
    """Returns for each class the lowest threshold with at least this precision on the items.

    Precision is the share of right predictions among the items predicted as the class with at least
    the probability of the threshold. A threshold is always the probability of an item, because
    nothing is known about lower ones. A class without such a threshold gets 1.
    """
    return [_lowest(scores, number, precision) for number in range(scores.probabilities.shape[1])]


def _lowest(scores: Scores, number: int, precision: float) -> Threshold:
    """Returns the threshold of the class with the index `number`."""
    predicted = scores.predictions == number
    found = scores.probabilities[predicted, number]
    order = np.argsort(-found, kind="stable")
    found, right = found[order], np.cumsum(scores.right[predicted][order])
    kept = np.arange(1, len(found) + 1)
    last_of_equals = np.append(found[1:] != found[:-1], True)[: len(found)]
    good = np.flatnonzero(last_of_equals & (right >= precision * kept - 1e-9))
    if not len(good):
        return Threshold(1.0, len(found), 0, 0)
    at = good[-1]
    return Threshold(float(found[at]), len(found), int(kept[at]), int(right[at]))


def enough_items(precision: float) -> int:
    """Returns how many items a class needs for a threshold of this precision.

    With fewer than 1 / (1 − precision) items, one mistake moves the threshold. The result is 10 to
    100.
    """
    return int(np.clip(math.ceil(1 / max(1 - precision, 1e-9) - 1e-6), 10, 100))
