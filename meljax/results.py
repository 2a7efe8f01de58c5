"""What a finished run knows about itself: scores with their intervals, mistakes, history."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int16

from meljax import calibration, intervals, metrics
from meljax.metrics import Row


class Judged:
    """What true classes and probabilities tell, however they were come by.

    Attributes:
      side: 'train', 'val' or 'test'.
      epoch: whose weights, from 1.
      chosen: whether these weights were chosen for their score on the validation set.
      labels: true class of every item.
      probabilities: calibrated, of every class, for every item.
    """

    side: str
    epoch: int
    chosen: bool
    labels: Int[np.ndarray, " items"]
    probabilities: Float[np.ndarray, "items classes"]

    @property
    def predictions(self) -> Int[np.ndarray, " items"]:
        """Returns the most probable class of every item."""
        return self.probabilities.argmax(-1)

    @property
    def right(self) -> Bool[np.ndarray, " items"]:
        """Returns which items were given their own class."""
        return self.predictions == self.labels

    @functools.cached_property
    def confusion(self) -> Int[np.ndarray, "classes classes"]:
        """Returns counts, true classes in rows."""
        counts = np.zeros((self.probabilities.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    @property
    def accuracy(self) -> float:
        """Returns the share of items predicted right."""
        return metrics.accuracy(self.confusion)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Returns Wilson's 95 % interval."""
        return intervals.wilson(int(self.right.sum()), len(self.labels))

    @property
    def macro_f1(self) -> float:
        """Returns the mean of the classes' F1."""
        return float(metrics.macro_f1(self.confusion))

    @functools.cached_property
    def macro_f1_interval(self) -> tuple[float, float] | None:
        """Returns the bootstrap's 95 % interval; `None` where there are no mistakes to draw."""
        return intervals.bootstrap_macro_f1(self.confusion)


@dataclasses.dataclass(frozen=True)
class Scored(Judged):
    """A set scored with the weights of one epoch; fields as in `Judged`, and more.

    Attributes:
      logits: of every window.
      item: which item each window belongs to.
      temperature: what logits are divided by on the way to probabilities.
    """

    side: str
    epoch: int
    chosen: bool
    logits: Float[np.ndarray, "windows classes"]
    item: Int[np.ndarray, " windows"]
    labels: Int[np.ndarray, " items"]
    temperature: float = 1.0

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, "items classes"]:
        """Returns the calibrated probability of every class, for every item."""
        return calibration.item_probabilities(self.logits, self.item, self.temperature)

    @functools.cached_property
    def raw_probabilities(self) -> Float[np.ndarray, "items classes"]:
        """Returns the probabilities without the temperature."""
        return calibration.item_probabilities(self.logits, self.item, 1.0)

    @property
    def loss(self) -> float:
        """Returns the mean cross-entropy, in nats, of the probabilities without temperature."""
        return calibration.log_loss(self.raw_probabilities, self.labels)


@dataclasses.dataclass(frozen=True)
class Predicted(Judged):
    """A set as `predictions.csv` has it; fields as in `Judged`.

    Attributes:
      paths: of the items.
    """

    side: str
    epoch: int
    chosen: bool
    paths: tuple[str, ...]
    labels: Int[np.ndarray, " items"]
    probabilities: Float[np.ndarray, "items classes"]


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An item that was given a wrong class.

    Attributes:
      path: of the item.
      label: its class.
      prediction: the class it was given.
      probability: that was given to `prediction`.
      picture: what the network saw of it, in 0…1; low frequencies are in the last row. Of several
        windows the one that speaks most clearly for `prediction`.
      evidence: how much each part of the picture spoke for `prediction`, in 0…1 (Grad-CAM).
      sound: what was heard, int16; `None` of a picture.
    """

    path: str
    label: str
    prediction: str
    probability: float
    picture: Float[np.ndarray, "rows columns channel"]
    evidence: Float[np.ndarray, "rows columns"]
    sound: Int16[np.ndarray, " samples"] | None


@dataclasses.dataclass(frozen=True)
class MaskExample:
    """A training picture before and after masking."""

    path: str
    label: str
    clean: Float[np.ndarray, "rows columns channel"]
    masked: Float[np.ndarray, "rows columns channel"]


@dataclasses.dataclass(frozen=True)
class RunResults:
    """All that a run's report shows.

    Attributes:
      name: of the run.
      facts: what `config.json` holds: settings, versions, device, data, how the weights began.
      classes: names, in the order of the labels.
      history: a row per epoch, as in `metrics.jsonl`.
      scores: of the last epoch first, then of the best; validation before test.
      mistakes: of the last epoch's weights on the validation set, the surest first.
      mask_examples: training pictures before and after masking; none where masks are off.
    """

    name: str
    facts: dict[str, Any]
    classes: tuple[str, ...]
    history: list[Row]
    scores: list[Scored]
    mistakes: list[Mistake]
    mask_examples: list[MaskExample]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run's own files tell of it, without its data and weights.

    Attributes:
      name: of the run, told apart from the others beside it.
      path: its directory.
      facts: what `config.json` holds.
      history: a row per epoch, up to the one that was scored last.
      unscored: epochs that `metrics.jsonl` has beyond that.
      scores: of the last epoch first, then of the best; validation before test.
      calibration: what `calibration.json` holds; `None` where there is none.
    """

    name: str
    path: Path
    facts: dict[str, Any]
    history: list[Row]
    unscored: int
    scores: list[Predicted]
    calibration: dict[str, Any] | None
