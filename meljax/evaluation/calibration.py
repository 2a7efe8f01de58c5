"""Temperature scaling and calibration error."""

from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Bool, Float, Int

from meljax.evaluation.aggregation import item_probabilities
from meljax.evaluation.groups import Groups
from meljax.util import phrases

BINS = 15
"""Number of confidence bins of the calibration error, as in Guo et al. (2017)."""

BOUNDS = (0.05, 20.0)
"""Range of possible temperatures."""

END = 0.01
"""A temperature is at an end of `BOUNDS` if it differs from that end by this share or less."""

MIN_ITEMS = 50
"""Minimum number of items that a temperature is fitted to."""

FOLDS = 5
"""Number of folds of `cross_fit`, and the minimum number of groups for it."""


class Temperature(NamedTuple):
    """The divisor of the logits; `note` says why it stays 1 ('' if it was fitted)."""

    value: float = 1.0
    note: str = ""


def log_loss(
    probabilities: Float[np.ndarray, "items classes"], labels: Int[np.ndarray, " items"]
) -> float:
    """Returns the mean cross-entropy, in nats."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def fit_temperature(
    logits: Float[np.ndarray, "windows classes"],
    item: Int[np.ndarray, " windows"],
    labels: Int[np.ndarray, " items"],
) -> float:
    """Returns the temperature whose probabilities fit the labels best.

    It minimizes the cross-entropy (Guo et al. 2017) against smoothed labels: the true class has
    probability (n + 1) / (n + 2) for n items, as in Platt scaling (1999). Without smoothing, a set
    without mistakes would give a temperature of 0 and probabilities of 1. For `logits` and `item`
    see `item_probabilities`.
    """
    items, classes = len(labels), logits.shape[-1]
    smoothing = 1 / (items + 2)
    targets = np.full((items, classes), smoothing / (classes - 1))
    targets[np.arange(items), labels] = 1 - smoothing

    def loss(log_temperature: float) -> float:
        probabilities = item_probabilities(logits, item, float(np.exp(log_temperature)))
        return -(targets * np.log(np.maximum(probabilities, 1e-300))).sum() / items

    found = scipy.optimize.minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x))


def choose_temperature(
    logits: Float[np.ndarray, "windows classes"],
    item: Int[np.ndarray, " windows"],
    labels: Int[np.ndarray, " items"],
) -> Temperature:
    """Returns the temperature of `fit_temperature`, or 1 where it cannot be trusted.

    It stays 1 with fewer than `MIN_ITEMS` items, if the best one is at an end of `BOUNDS`, or if it
    would raise the cross-entropy of the items, which the smoothed labels allow.
    """
    if len(labels) < MIN_ITEMS:
        items = phrases.count(len(labels), "validation item")
        return Temperature(note=f"{items}, at least {MIN_ITEMS} needed")
    return _fitted(logits, item, labels)


def _fitted(
    logits: Float[np.ndarray, "windows classes"],
    item: Int[np.ndarray, " windows"],
    labels: Int[np.ndarray, " items"],
) -> Temperature:
    """Like `choose_temperature`, for any number of items."""
    value = fit_temperature(logits, item, labels)
    low, high = BOUNDS
    if not low * (1 + END) < value < high * (1 - END):
        note = f"the best temperature is at an end of the range {low:g} to {high:g}"
        return Temperature(note=note)
    before, after = (
        log_loss(item_probabilities(logits, item, temperature), labels)
        for temperature in (1.0, value)
    )
    if after > before:
        note = "a fitted temperature does not lower the loss of the validation items"
        return Temperature(note=note)
    return Temperature(value)


def cross_fit(
    logits: Float[np.ndarray, "windows classes"],
    item: Int[np.ndarray, " windows"],
    labels: Int[np.ndarray, " items"],
    groups: Groups,
) -> Float[np.ndarray, "items classes"]:
    """Returns each item's probabilities at a temperature that was fitted to the other folds.

    Scores of these probabilities show what the temperature does for new items; on the items that it
    was fitted to, scores are optimistic (Stone 1974). The items of a group are in one fold; see
    `folds`.
    """
    probabilities = np.empty((len(labels), logits.shape[-1]))
    fold = folds(labels, groups)
    for number in range(FOLDS):
        held_out = fold == number
        others, other_item = _part(item, ~held_out)
        temperature = _fitted(logits[others], other_item, labels[~held_out]).value
        inside, inside_item = _part(item, held_out)
        probabilities[held_out] = item_probabilities(logits[inside], inside_item, temperature)
    return probabilities


def _part(
    item: Int[np.ndarray, " windows"], chosen: Bool[np.ndarray, " items"]
) -> tuple[Bool[np.ndarray, " windows"], Int[np.ndarray, " part"]]:
    """Returns which windows belong to the `chosen` items, and their numbers among these."""
    windows = chosen[item]
    return windows, (np.cumsum(chosen) - 1)[item[windows]]


def folds(labels: Int[np.ndarray, " items"], groups: Groups) -> Int[np.ndarray, " items"]:
    """Returns the fold of each item; groups are kept together, and classes are balanced.

    Groups are placed one by one, the largest first. Each goes to the fold where it adds least to
    the sum of the squared class counts; among equal folds, to the smallest. So each of the first
    `FOLDS` groups gets a fold of its own.
    """
    classes = np.unique(labels, return_inverse=True)[1]
    counts = np.zeros((groups.number, classes.max() + 1), np.int64)
    np.add.at(counts, (groups.index, classes), 1)
    held, place = np.zeros((FOLDS, counts.shape[1]), np.int64), np.zeros(groups.number, np.int64)
    for group in np.argsort(-counts.sum(1), kind="stable"):
        cost = held @ counts[group]
        place[group] = np.lexsort((held.sum(1), cost))[0]
        held[place[group]] += counts[group]
    return place[groups.index]


def bins(
    probabilities: Float[np.ndarray, "items classes"], labels: Int[np.ndarray, " items"]
) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Returns the number of items, mean confidence and accuracy of `BINS` confidence bins.

    Confidence is the highest probability of an item. Bins have equal widths; an empty one has mean
    and accuracy 0.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count, sums, hits = (np.bincount(place, weights, BINS) for weights in (None, confidence, right))
    return count, sums / np.maximum(count, 1), hits / np.maximum(count, 1)


def calibration_error(
    probabilities: Float[np.ndarray, "items classes"], labels: Int[np.ndarray, " items"]
) -> float:
    """Returns the expected calibration error (Naeini et al. 2015).

    That is |confidence − accuracy| of each of the `bins`, averaged over the items.
    """
    count, confidence, right = bins(probabilities, labels)
    return float((count * np.abs(confidence - right)).sum() / count.sum())
