"""From logits to probabilities that mean what they say, and how far they can be believed."""

import numpy as np
import scipy  # its parts are imported when they are used
from jaxtyping import Float, Int

BINS = 15
"""Of confidence, for the calibration error; as Guo et al. have it."""

BOUNDS = (0.05, 20.0)
"""Between which a temperature is looked for."""


def item_probabilities(
    logits: Float[np.ndarray, "windows classes"],
    item: Int[np.ndarray, " windows"],
    temperature: float,
) -> Float[np.ndarray, "items classes"]:
    """Returns each item's probabilities, the mean of its windows', in float64.

    Args:
      logits: of every window.
      item: which item each belongs to; from 0, every item at least once.
      temperature: what the logits are divided by (Guo et al. 2017); 1 leaves them alone.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    windows = powers / powers.sum(-1, keepdims=True)
    count = np.bincount(item)
    sums = np.zeros((len(count), logits.shape[-1]))
    np.add.at(sums, item, windows)
    return sums / count[:, None]


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
    """Returns the temperature at which the items' probabilities fit their labels best.

    It minimises the cross-entropy (Guo et al. 2017) against labels that are held for true with
    (n + 1) / (n + 2) only, n being the number of items, as in Platt's scaling (1999): else items
    that are all right would call for a temperature of 0, and for probabilities of 1.
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
    """Returns, for `BINS` equal ranges of confidence, how many items lie there, their mean
    confidence and the share of them that is right; 0 where there are none.

    Confidence is the highest probability of an item.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count, sums, hits = (np.bincount(place, weights, BINS) for weights in (None, confidence, right))
    return count, sums / np.maximum(count, 1), hits / np.maximum(count, 1)


def calibration_error(
    probabilities: Float[np.ndarray, "items classes"], labels: Int[np.ndarray, " items"]
) -> float:
    """Returns the expected calibration error (Naeini et al. 2015): how far confidence and share of
    right items lie apart, on average over the items."""
    count, confidence, right = bins(probabilities, labels)
    return float((count * np.abs(confidence - right)).sum() / count.sum())


def top_accuracy(
    probabilities: Float[np.ndarray, "items classes"], labels: Int[np.ndarray, " items"], k: int
) -> float:
    """Returns the share of items whose class is among the `k` most probable ones."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    return float((order == labels[:, None]).any(-1).mean())
