"""Temperature scaling and calibration error."""

import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Float, Int

from meljax.evaluation.aggregation import item_probabilities

BINS = 15
"""Number of confidence bins of the calibration error, as in Guo et al. (2017)."""

BOUNDS = (0.05, 20.0)
"""Range of possible temperatures."""


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
    doubt = 1 / (items + 2)
    targets = np.full((items, classes), doubt / (classes - 1))
    targets[np.arange(items), labels] = 1 - doubt

    def loss(log_temperature: float) -> float:
        probabilities = item_probabilities(logits, item, float(np.exp(log_temperature)))
        return -(targets * np.log(np.maximum(probabilities, 1e-300))).sum() / items

    found = scipy.optimize.minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x))


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
