"""95 % intervals of shares and macro-F1, and paired tests.

Items of one group, such as the recordings of a speaker, are alike. Intervals that treat them as
independent are too narrow, and p-values too small. Where items share groups, whole groups are
resampled or permuted; with fewer than `MIN_GROUPS` there is neither interval nor p-value.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Bool, Float, Int

from meljax.evaluation.groups import Groups
from meljax.evaluation.metrics import macro_f1, mean_f1, without

LEVEL = 0.05
"""Significance level of a single test."""

MIN_GROUPS = 8
"""Minimum number of groups for an interval or a test; with 7, no p-value is below 0.016."""

RESAMPLES = 2000
"""Number of bootstrap resamples."""

_PART = 4_000_000
"""Maximum number of values that resamples hold at a time, which bounds the memory."""

Bounds = tuple[float, float]
"""Lower and upper end of an interval, in 0…1."""


class Interval(NamedTuple):
    """A 95 % interval, or why there is none.

    Attributes:
      bounds: its ends; `None` if there is no interval.
      method: 'Wilson', 'bootstrap', 'bootstrap of groups', 'Wilson with groups as items' or ''.
      note: 'over 12 speakers' if it is based on groups; why there is none; else ''.
    """

    bounds: Bounds | None
    method: str
    note: str = ""


def share_interval(right: Bool[np.ndarray, " items"], groups: Groups, grouped: bool) -> Interval:
    """Returns the interval of the share of `right` items.

    It is Wilson's or, if `grouped`, the bootstrap's over groups. If all items are right or all are
    wrong, all resamples are equal; the interval is then Wilson's with a trial per group. This
    treats the items of a group as copies of each other, the worst case of the effective sample size
    n / deff (Kish 1965; Korn & Graubard 1998). The interval is never narrower than with independent
    items, as in Korn & Graubard: it includes Wilson's interval of the items.

    Args:
      right: of each item, whether it is right; at least one item.
      groups: of the same items.
      grouped: whether groups decide; else each item is independent.
    """
    hits, items = int(right.sum()), len(right)
    if not grouped:
        return Interval(wilson(hits, items), "Wilson")
    if groups.number < MIN_GROUPS:
        return _too_few(groups)
    over = f"over {groups.text()}"
    if hits in (0, items):
        bounds = wilson(groups.number if hits else 0, groups.number)
        return Interval(bounds, "Wilson with groups as items", over)
    bounds = _hull(wilson(hits, items), bootstrap_share(right, groups.index))
    return Interval(bounds, "bootstrap of groups", over)


def macro_f1_interval(
    labels: Int[np.ndarray, " items"],
    predictions: Int[np.ndarray, " items"],
    confusion: Int[np.ndarray, "classes classes"],
    unscored: Sequence[int],
    groups: Groups,
    grouped: bool,
) -> Interval:
    """Returns the bootstrap interval of macro-F1.

    It has no bounds if all items are right or all are wrong, because all resamples would be equal.
    It is never narrower than with independent items; see `share_interval`.

    Args:
      labels: of the items that count.
      predictions: of the same items.
      confusion: of all items.
      unscored: classes whose items do not count.
      groups: of the items that count.
      grouped: whether groups decide; else each item is independent.
    """
    if grouped and groups.number < MIN_GROUPS:
        return _too_few(groups)
    bounds = bootstrap_macro_f1(confusion, unscored)
    if bounds is None:
        none = "right" if (labels != predictions).any() else "wrong"
        return Interval(None, "", f"no interval: no file was {none}")
    if not grouped:
        return Interval(bounds, "bootstrap")
    resampled = bootstrap_macro_f1_of_groups(
        labels, predictions, groups.index, len(confusion), unscored
    )
    return Interval(_hull(bounds, resampled), "bootstrap of groups", f"over {groups.text()}")


def _too_few(groups: Groups) -> Interval:
    return Interval(None, "", f"{groups.text()}: too few for an interval")


def _hull(one: Bounds, other: Bounds) -> Bounds:
    return min(one[0], other[0]), max(one[1], other[1])


def wilson(successes: int, trials: int) -> Bounds:
    """Returns the score interval of a proportion (Wilson 1927), (lower, upper) in 0…1."""
    lower, upper = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(lower), float(upper)


def bootstrap_macro_f1(
    confusion: Int[np.ndarray, "classes classes"],
    unscored: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bounds | None:
    """Returns the percentile bootstrap interval of macro-F1 (Efron & Tibshirani 1993, ch. 13).

    Classes in `unscored` and their items are left out. The interval is `None` if all items are
    right or all are wrong, because all resamples would be equal. Resampling all items with
    replacement is a multinomial draw from the cells of the confusion matrix.
    """
    confusion = without(confusion, unscored)
    total = int(confusion.sum())
    if np.trace(confusion) in (0, total):
        return None
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(confusion)
    drawn = rng.multinomial(total, confusion.ravel()[cells] / total, size=resamples)
    scores = []
    for part in np.array_split(drawn, max(1, resamples * confusion.size // _PART)):
        matrices = np.zeros((len(part), confusion.size), np.int64)
        matrices[:, cells] = part
        scores.append(macro_f1(matrices.reshape(-1, *confusion.shape), unscored))
    return _percentiles(np.concatenate(scores))


def bootstrap_share(
    right: Bool[np.ndarray, " items"],
    group: Int[np.ndarray, " items"],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bounds:
    """Returns the percentile bootstrap interval of the share of `right` items over whole groups.

    A resample draws groups with replacement, as many as there are, each with all its items (Davison
    & Hinkley 1997, sec. 3.8). `group` is the number of each item's group, from 0, without gaps.
    """
    hits, items = np.bincount(group, right), np.bincount(group)
    drawn = _draws(len(items), len(items), resamples, seed)
    return _percentiles(np.concatenate([(part @ hits) / (part @ items) for part in drawn]))


def bootstrap_macro_f1_of_groups(
    labels: Int[np.ndarray, " items"],
    predictions: Int[np.ndarray, " items"],
    group: Int[np.ndarray, " items"],
    classes: int,
    unscored: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bounds:
    """Returns the percentile bootstrap interval of macro-F1 over whole groups.

    The items are those that count; `group` is as in `bootstrap_share`.
    """
    groups, hit = int(group.max()) + 1, labels == predictions
    # Counts of right, true and predicted items of each class: one row per group.
    rows = np.concatenate([group[hit], group, group])
    columns = np.concatenate([labels[hit], classes + labels, 2 * classes + predictions])
    shape = (groups, 3 * classes)
    counts = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    scores = []
    for part in _draws(groups, max(shape), resamples, seed):
        hits, true, predicted = np.split(part @ counts, 3, axis=1)
        scores.append(mean_f1(hits, true, predicted, unscored))
    return _percentiles(np.concatenate(scores))


def _draws(
    groups: int, numbers: int, resamples: int, seed: int
) -> Iterator[Int[np.ndarray, "part groups"]]:
    """Yields how often each group is drawn; a resample holds about `numbers` values."""
    rng = np.random.default_rng(seed)
    for part in np.array_split(np.arange(resamples), max(1, resamples * numbers // _PART)):
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=len(part))


def _percentiles(scores: Float[np.ndarray, " resamples"]) -> Bounds:
    lower, upper = np.percentile(scores, [2.5, 97.5])
    return float(lower), float(upper)


class Paired(NamedTuple):
    """How many files both, one or neither of two classifiers got right, and a paired test.

    Attributes:
      p: the p-value; `None` if there are too few groups.
      test: 'McNemar’s test', 'permutation of 12 speakers', or why there is no p-value.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float | None
    test: str


def paired_test(
    first: Bool[np.ndarray, " items"], second: Bool[np.ndarray, " items"], groups: Groups
) -> Paired:
    """Tests whether two classifiers differ, given which items each got right.

    It is McNemar's if each item is its own group, otherwise a permutation test of the groups.
    """
    if not groups.shared:
        p, test = mcnemar(first, second), "McNemar’s test"
    elif groups.number < MIN_GROUPS:
        p, test = None, f"{groups.text()}: too few for a p-value"
    else:
        differences = np.bincount(groups.index, first.astype(float) - second)
        p = sign_flips(differences.round().astype(np.int64))
        test = f"permutation of {groups.text()}"
    return Paired(
        both=int((first & second).sum()),
        only_first=int((first & ~second).sum()),
        only_second=int((second & ~first).sum()),
        neither=int((~first & ~second).sum()),
        p=p,
        test=test,
    )


def mcnemar(first: Bool[np.ndarray, " items"], second: Bool[np.ndarray, " items"]) -> float:
    """Returns the p-value of McNemar's exact test (1947).

    Under the null hypothesis, an item that only one classifier gets right is equally likely to be
    the first's or the second's. p is the two-sided binomial p-value of these counts; without such
    items it is 1.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    uneven = only_first + only_second
    return float(scipy.stats.binomtest(only_first, uneven).pvalue) if uneven else 1.0


def sign_flips(differences: Int[np.ndarray, " groups"]) -> float:
    """Returns the two-sided p-value of the exact paired permutation test (Fisher 1935, sec. 21).

    Under the null hypothesis, the two classifiers are exchangeable within each group, so each
    group's difference is equally likely to have the other sign. p is the share of all 2^groups
    choices of signs whose sum is at least as far from 0 as that of `differences`. It is computed
    without listing them: adding a group convolves the distribution of the sum with two points.
    With a difference of 1 or −1 in each group, it is McNemar's test.
    """
    sizes = np.abs(differences[differences != 0])
    total = int(sizes.sum())
    chance = np.zeros(total + 1)  # of each sum of the sizes with a positive sign
    chance[0] = 1
    for size in sizes:
        flipped = np.zeros_like(chance)
        flipped[size:] = chance[:-size]
        chance = (chance + flipped) / 2
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(chance[np.abs(sums) >= abs(int(differences.sum()))].sum()))
