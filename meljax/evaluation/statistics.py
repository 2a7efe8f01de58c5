"""95 % intervals and McNemar's test."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Bool, Int

from meljax.evaluation.metrics import macro_f1, without

LEVEL = 0.05
"""Significance level of a single test."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Returns the score interval of a proportion (Wilson 1927), (lower, upper) in 0…1."""
    lower, upper = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(lower), float(upper)


def bootstrap_macro_f1(
    confusion: Int[np.ndarray, "classes classes"],
    unscored: Sequence[int] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Returns the percentile bootstrap interval of macro-F1 (Efron & Tibshirani 1993, ch. 13).

    Classes in `unscored` and their items are left out. The interval is `None` if there are no
    mistakes, because no resample would contain one. Resampling all items with replacement is a
    multinomial draw from the cells of the confusion matrix.
    """
    confusion = without(confusion, unscored)
    total = int(confusion.sum())
    if np.trace(confusion) == total:
        return None
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(confusion)
    drawn = rng.multinomial(total, confusion.ravel()[cells] / total, size=resamples)
    scores = []
    # Parts of at most 4 million cells bound the memory.
    for part in np.array_split(drawn, max(1, resamples * confusion.size // 4_000_000)):
        matrices = np.zeros((len(part), confusion.size), np.int64)
        matrices[:, cells] = part
        scores.append(macro_f1(matrices.reshape(-1, *confusion.shape), unscored))
    lower, upper = np.percentile(np.concatenate(scores), [2.5, 97.5])
    return float(lower), float(upper)


class Paired(NamedTuple):
    """How many files both, one or neither of two classifiers got right, and McNemar's p-value."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def mcnemar(first: Bool[np.ndarray, " items"], second: Bool[np.ndarray, " items"]) -> Paired:
    """Returns McNemar's exact test (1947), given which items two classifiers got right.

    Under the null hypothesis, an item that only one classifier gets right is equally likely to be
    the first's or the second's. p is the two-sided binomial p-value of these counts; without such
    items it is 1.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    uneven = only_first + only_second
    p = float(scipy.stats.binomtest(only_first, uneven).pvalue) if uneven else 1.0
    return Paired(
        int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p
    )
