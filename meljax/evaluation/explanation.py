"""What the network saw of an item: one window, its image, and the evidence for a class in it."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Array, Float, Int, Shaped

from meljax.evaluation.forward import Model
from meljax.evaluation.grad_cam import evidence


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A window of an item, and the evidence for a class in it.

    Attributes:
      path: name of the item.
      target: class that the evidence is for.
      probability: calibrated probability of `target` for the whole item.
      start: start of the window in its item, in samples or columns; negative if the item is shorter
        than the window.
      image: input of the network, in 0…1; the lowest frequencies are in the last row.
      evidence: evidence for `target` in each part of the image, in 0…1 (Grad-CAM).
      grid: rows and columns of the feature maps that the evidence is interpolated from.
      samples: samples of the window, where 1 is full scale; `None` for an image.
    """

    path: str
    target: str
    probability: float
    start: int
    image: Float[np.ndarray, "rows columns channel"]
    evidence: Float[np.ndarray, "rows columns"]
    grid: tuple[int, int]
    samples: Float[np.ndarray, " samples"] | None


def explain_windows(
    model: Model,
    windows: Shaped[Array, "batch window ..."],
    targets: Int[np.ndarray, " batch"],
    items: Sequence[tuple[str, float, int]],
) -> list[Explanation]:
    """Returns the explanation of each window.

    `targets` are the classes that evidence is computed for. `items` are the path, probability and
    start of the first windows; further windows only pad the batch and are not returned.
    """
    images, heat, grid = evidence(model, windows, jax.numpy.asarray(targets))
    images, heat, windows = jax.device_get((images, heat, windows))
    audio = model.frontend.kind == "audio"
    return [
        Explanation(
            path=path,
            target=model.classes[targets[n]],
            probability=probability,
            start=start,
            image=images[n],
            evidence=heat[n],
            grid=grid,
            samples=windows[n] if audio else None,
        )
        for n, (path, probability, start) in enumerate(items)
    ]


def clearest_window(logits: Float[np.ndarray, "windows classes"], target: int) -> int:
    """Returns the index of the window with the highest probability of the class `target`."""
    return int(scipy.special.log_softmax(logits, axis=-1)[:, target].argmax())
