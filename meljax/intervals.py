"""How far a score can be trusted: 95 % intervals."""

import math

import numpy as np
from jaxtyping import Int

from meljax.metrics import macro_f1

Z95 = 1.959963984540054
"""The standard normal distribution's 97.5 % point."""


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Returns the score interval of a proportion (Wilson 1927), lower and upper bound in 0…1."""
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def bootstrap_macro_f1(
    confusion: Int[np.ndarray, "classes classes"], resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Returns the percentile bootstrap interval of macro-F1 (Efron & Tibshirani 1993, ch. 13).

    `None` where there are no mistakes: drawing from none gives none, which is no certainty.

    Drawing as many items as there are, with replacement, is a multinomial draw from the cells of
    the confusion matrix.
    """
    total = int(confusion.sum())
    if np.trace(confusion) == total:
        return None
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(confusion)
    drawn = rng.multinomial(total, confusion.ravel()[cells] / total, size=resamples)
    scores = []
    for part in np.array_split(drawn, max(1, resamples * confusion.size // 4_000_000)):
        matrices = np.zeros((len(part), confusion.size), np.int64)
        matrices[:, cells] = part
        scores.append(macro_f1(matrices.reshape(-1, *confusion.shape)))
    lower, upper = np.percentile(np.concatenate(scores), [2.5, 97.5])
    return float(lower), float(upper)
