"""The results of a run that its report shows."""

import dataclasses

import numpy as np
from jaxtyping import Float

from meljax.evaluation.coverage import Probes
from meljax.evaluation.metrics import Row
from meljax.evaluation.mistakes import Mistake
from meljax.evaluation.scores import Scored
from meljax.features.frontend import Frontend
from meljax.runs.info import RunInfo


@dataclasses.dataclass(frozen=True)
class MaskExample:
    """The image of a random window of a training item, before and after masking."""

    path: str
    label: str
    clean: Float[np.ndarray, "rows columns channel"]
    masked: Float[np.ndarray, "rows columns channel"]


@dataclasses.dataclass(frozen=True)
class RunResults:
    """Everything that a run's report shows.

    Attributes:
      frontend: makes the images that the network sees.
      classes: names, in the order of the labels.
      history: a row per epoch, as in `metrics.jsonl`.
      scores: by split (validation, test), then by weights (last epoch, best epoch if known).
      mistakes: mistakes of the best epoch on validation files, the most confident first; of the
        last epoch if the weights of the best one are lost.
      last_mistakes: those of the last epoch that the best epoch does not make.
      mask_examples: training images before and after masking; empty if masks are off.
      probes: probabilities of sounds that belong to no class, from the same weights as
        `mistakes`; empty for models of images.
      in_training: whether another process is training the run.
    """

    name: str
    info: RunInfo
    frontend: Frontend
    classes: tuple[str, ...]
    history: list[Row]
    scores: list[Scored]
    mistakes: list[Mistake]
    last_mistakes: list[Mistake]
    mask_examples: list[MaskExample]
    probes: Probes
    in_training: bool = False

    @property
    def last(self) -> Scored:
        """The validation scores of the last epoch."""
        return self.scores[0]

    @property
    def best(self) -> Scored:
        """The validation scores of the best epoch, or of the last one if its weights are lost."""
        return next((each for each in self.scores if each.chosen), self.last)

    @property
    def unfinished(self) -> str:
        """How far an unfinished run has come, as the end of a sentence; '' if it is finished."""
        done, wanted = self.last.epoch, self.info.config["train.epochs"]
        if done >= wanted:
            return ""
        if self.in_training:
            return f"being trained; these are the results of epoch {done:,} of {wanted:,}"
        return f"stopped after epoch {done:,} of {wanted:,}; run the same command again to resume"
