"""The results of a run that its report shows."""

import dataclasses

import numpy as np
from jaxtyping import Float

from meljax.evaluation.coverage import Probes
from meljax.evaluation.metrics import Row
from meljax.evaluation.mistakes import Mistake
from meljax.evaluation.scores import Scored
from meljax.runs.info import RunInfo


@dataclasses.dataclass(frozen=True)
class MaskExample:
    """A training image before and after masking."""

    path: str
    label: str
    clean: Float[np.ndarray, "rows columns channel"]
    masked: Float[np.ndarray, "rows columns channel"]


@dataclasses.dataclass(frozen=True)
class RunResults:
    """Everything that a run's report shows.

    Attributes:
      classes: names, in the order of the labels.
      history: a row per epoch, as in `metrics.jsonl`.
      scores: by split (validation, test), then by weights (last epoch, best epoch if known).
      mistakes: mistakes of the last epoch on validation files, the most confident first.
      mask_examples: training images before and after masking; empty if masks are off.
      probes: probabilities of sounds that are none of the classes, from the weights that predict
        uses; empty for images.
    """

    name: str
    info: RunInfo
    classes: tuple[str, ...]
    history: list[Row]
    scores: list[Scored]
    mistakes: list[Mistake]
    mask_examples: list[MaskExample]
    probes: Probes
