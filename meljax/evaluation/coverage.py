"""Accuracy against coverage: what a threshold on the probability accepts and rejects."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from meljax.data.manifest import Bad
from meljax.data.probes import make_probes
from meljax.evaluation.forward import Model
from meljax.evaluation.scorer import Source, score_stream, whole_items
from meljax.evaluation.scores import Scores

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""The thresholds in the report's table."""

Probes = Mapping[str, Float[np.ndarray, "items classes"]]
"""Calibrated probabilities of sounds that belong to no class, by kind."""


class ThresholdRow(NamedTuple):
    """What a threshold accepts and rejects; all shares are in 0…1.

    Attributes:
      threshold: least probability of an accepted prediction.
      coverage: share of the files that are accepted.
      accuracy: share of right predictions among the accepted files; `None` without accepted files.
      rejected: share of the sounds of each kind that are rejected.
    """

    threshold: float
    coverage: float
    accuracy: float | None
    rejected: dict[str, float]


def probe(model: Model, temperature: float) -> dict[str, Float[np.ndarray, "items classes"]]:
    """Returns the calibrated probabilities of `make_probes` by kind; empty for models of images."""
    if model.frontend.kind != "audio":
        return {}
    kinds = make_probes(model.frontend.window, model.frontend.mel.sample_rate)
    sources = [
        Source(kind, lambda sound=sound: sound)
        for kind, sounds in kinds.items()
        for sound in sounds
    ]
    found: dict[str, list] = {kind: [] for kind in kinds}
    for result in whole_items(score_stream(model, sources)):
        assert not isinstance(result, Bad), result
        found[result.path].append(result.probabilities(temperature))
    return {kind: np.stack(rows) for kind, rows in found.items()}


def accepted(
    probabilities: Float[np.ndarray, "items classes"], threshold: float, background: int | None
) -> Bool[np.ndarray, " items"]:
    """Returns which predictions are accepted: at least `threshold`, and not the background."""
    sure = probabilities.max(-1) >= threshold
    return sure if background is None else sure & (probabilities.argmax(-1) != background)


def threshold_rows(
    scores: Scores, probes: Probes, thresholds: Sequence[float] = THRESHOLDS
) -> list[ThresholdRow]:
    """Returns what each threshold does to the scored files and to the `probes`."""
    counted = scores.counted
    rows = []
    for threshold in thresholds:
        taken = accepted(scores.probabilities, threshold, scores.background)[counted]
        right = scores.right[counted][taken]
        rejected = {
            kind: 1 - float(accepted(each, threshold, scores.background).mean())
            for kind, each in probes.items()
        }
        rows.append(
            ThresholdRow(
                threshold=threshold,
                coverage=float(taken.mean()),
                accuracy=float(right.mean()) if len(right) else None,
                rejected=rejected,
            )
        )
    return rows


def coverage_curve(
    scores: Scores,
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Returns coverage and accuracy for all thresholds, the highest first.

    Each distinct probability has one point: files with the same one are accepted together.
    """
    counted = scores.counted & accepted(scores.probabilities, 0.0, scores.background)
    confidence = scores.probabilities.max(-1)[counted]
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(scores.right[counted][order])
    number = np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidence[order]) != 0, True)[: len(order)]
    return number[last] / scores.counted.sum(), hits[last] / number[last]
