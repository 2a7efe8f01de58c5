"""Whether two classifiers, judged on the same files, differ by more than chance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import stats

LEVEL = 0.05
"""Below this p-value a single difference counts as more than chance."""


class Paired(NamedTuple):
    """How two classifiers did on the same files.

    Attributes:
      both: files that both got right.
      only_first: files that the first alone got right.
      only_second: files that the second alone got right.
      neither: files that both got wrong.
      p: of McNemar's exact test.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def mcnemar(first: Bool[np.ndarray, " items"], second: Bool[np.ndarray, " items"]) -> Paired:
    """Returns McNemar's exact test (1947) of which items either classifier got right.

    Were they equally good, each item that one alone gets right would be either's with probability
    1/2; p is the two-sided binomial probability of counts as uneven as these. Where there are no
    such items it is 1.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    uneven = only_first + only_second
    p = float(stats.binomtest(only_first, uneven).pvalue) if uneven else 1.0
    return Paired(
        int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p
    )
