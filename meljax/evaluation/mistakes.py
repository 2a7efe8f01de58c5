"""The most confident mistakes of a model, with their images and Grad-CAM evidence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Float, Shaped

from meljax.data.batches import DeviceSet
from meljax.data.dataset import Dataset
from meljax.evaluation.forward import Model
from meljax.evaluation.grad_cam import evidence
from meljax.evaluation.scores import Scored


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An item whose prediction was wrong.

    Attributes:
      path: path of the item, with the seconds of a segment.
      label: true class.
      prediction: predicted class.
      probability: probability of the predicted class.
      image: input of the network, in 0…1, low frequencies in the last row; of several windows the
        one most confidently predicted as `prediction`.
      evidence: evidence for `prediction` in each part of the image, in 0…1 (Grad-CAM).
      grid: rows and columns of the feature maps that the evidence is interpolated from.
      audio: the recording; `None` for an image.
    """

    path: str
    label: str
    prediction: str
    probability: float
    image: Float[np.ndarray, "rows columns channel"]
    evidence: Float[np.ndarray, "rows columns"]
    grid: tuple[int, int]
    audio: Shaped[np.ndarray, " samples"] | None


def worst_mistakes(
    model: Model, dataset: Dataset, data: DeviceSet, scores: Scored, limit: int = 24
) -> list[Mistake]:
    """Returns at most `limit` mistakes, the most confident first.

    `scores` are those of `model` on one split of `dataset`; `data` is that split on the devices.
    """
    predictions, confidence = scores.predictions, scores.probabilities.max(-1)
    wrong = np.flatnonzero(~scores.right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    if not len(worst):
        return []
    start = np.array([_clearest_start(data, scores, int(i)) for i in worst], np.int32)
    # The first mistake fills the batch up to `limit`, so all runs use one compiled program.
    index, start, predicted = (
        jnp.asarray(np.append(x, np.repeat(x[:1], limit - len(worst))))
        for x in (worst, start, predictions[worst])
    )
    windows = data.windows(index, start, model.frontend.window)
    images, heat, grid = evidence(model, windows, predicted)
    images, heat = jax.device_get((images, heat))
    item = dataset.indices(scores.split)
    return [
        Mistake(
            path=dataset.items[item[i]].name,
            label=dataset.items[item[i]].label,
            prediction=dataset.classes[predictions[i]],
            probability=float(confidence[i]),
            image=images[n],
            evidence=heat[n],
            grid=grid,
            audio=dataset.arrays[item[i]] if dataset.kind == "audio" else None,
        )
        for n, i in enumerate(worst)
    ]


def _clearest_start(data: DeviceSet, scores: Scored, i: int) -> int:
    """Returns the start of the window that gives item `i`'s prediction the highest confidence."""
    confidence = scipy.special.log_softmax(scores.logits[scores.item == i], axis=-1)
    items, places = np.asarray(data.scored).T
    return int(places[items == i][confidence[:, scores.predictions[i]].argmax()])
