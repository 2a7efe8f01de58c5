"""The most confident mistakes of a model, with what the network saw of them."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from meljax.data.batches import DeviceSet, cut_windows
from meljax.data.dataset import Dataset
from meljax.evaluation.explanation import Explanation, clearest_window, explain_windows
from meljax.evaluation.forward import Model
from meljax.evaluation.scores import Scored


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An item whose prediction was wrong.

    Attributes:
      label: true class.
      seen: the window with the highest probability of the predicted class, and the evidence for it.
    """

    label: str
    seen: Explanation


def worst_mistakes(
    model: Model,
    dataset: Dataset,
    data: DeviceSet,
    scores: Scored,
    limit: int = 24,
    known: Scored | None = None,
) -> list[Mistake]:
    """Returns at most `limit` mistakes of the items that count, the most confident first.

    `scores` are those of `model` on one split of `dataset`; `data` is that split on the devices.
    Mistakes with the same prediction in `known`, the scores of other weights, are left out.
    """
    predictions, confidence = scores.predictions, scores.probabilities.max(-1)
    new = known is None or known.predictions != predictions
    wrong = np.flatnonzero(~scores.right & scores.counted & new)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    if not len(worst):
        return []
    start = np.array([_clearest_start(data, scores, int(i)) for i in worst], np.int32)
    # The first mistake fills the batch up to `limit`, so all runs use one compiled program.
    index, starts, predicted = (
        np.append(x, np.repeat(x[:1], limit - len(worst)))
        for x in (worst, start, predictions[worst])
    )
    window = model.frontend.window
    windows = cut_windows(data, jnp.asarray(index), jnp.asarray(starts), window)
    items = [dataset.items[i] for i in np.array(dataset.indices(scores.split))[worst]]
    paths = [item.name for item in items]
    named = list(zip(paths, confidence[worst].tolist(), start.tolist(), strict=True))
    explained = explain_windows(model, windows, predicted, named)
    return [Mistake(item.label, seen) for item, seen in zip(items, explained, strict=True)]


def _clearest_start(data: DeviceSet, scores: Scored, i: int) -> int:
    """Returns the start of the window that gives item `i`'s prediction the highest confidence."""
    items, places = np.asarray(data.scored).T
    logits = scores.logits[scores.item == i] / scores.temperature
    chosen = clearest_window(logits, int(scores.predictions[i]))
    return int(places[items == i][chosen])
