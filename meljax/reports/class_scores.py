"""The scores of each class, and which classes are confused."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from meljax.evaluation import metrics


class ClassScore(NamedTuple):
    """The scores of a class; `None` where a denominator is 0.

    Attributes:
      number: place among the classes, from 1.
      files: number of files of the class.
      predicted: number of files predicted as the class.
      right: number of files of the class that are predicted as the class.
    """

    number: int
    name: str
    files: int
    predicted: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None


def per_class(
    confusion: Int[np.ndarray, "classes classes"], names: Sequence[str]
) -> list[ClassScore]:
    """Returns the scores of each class, in the order of `names`."""
    files, predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    right = confusion.diagonal().tolist()
    shares = np.stack(metrics.class_scores(confusion), -1).tolist()
    return [
        ClassScore(
            number=i + 1,
            name=name,
            files=files[i],
            predicted=predicted[i],
            right=right[i],
            precision=precision if predicted[i] else None,
            recall=recall if files[i] else None,
            f1=f1 if files[i] or predicted[i] else None,
        )
        for i, (name, (precision, recall, f1)) in enumerate(zip(names, shares, strict=True))
    ]


def worst_first(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """Returns the classes by F1, then recall, the lowest first; absent classes come last."""
    return sorted(scores, key=lambda each: (each.f1 is None, each.f1 or 0, each.recall or 0))


def confused_pairs(
    confusion: Int[np.ndarray, "classes classes"], limit: int | None = None
) -> list[tuple[int, int]]:
    """Returns at most `limit` (true, predicted) pairs of different classes, most frequent first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    pairs = np.argwhere(wrong)
    order = np.argsort(-wrong[tuple(pairs.T)], kind="stable")[:limit]
    return [(int(label), int(prediction)) for label, prediction in pairs[order]]


def most_confused(confusion: Int[np.ndarray, "classes classes"]) -> dict[int, tuple[int, int]]:
    """Returns the most frequent wrong prediction of each class with mistakes, and its count."""
    # In reverse, the most frequent pair of a class overwrites the others.
    pairs = reversed(confused_pairs(confusion))
    return {label: (wrong, int(confusion[label, wrong])) for label, wrong in pairs}
