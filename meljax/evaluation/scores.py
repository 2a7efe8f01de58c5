"""Scores derived from labels and predicted probabilities, with 95 % intervals."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from meljax.data.batches import PADDING, DeviceSet
from meljax.evaluation import calibration, metrics, statistics
from meljax.evaluation.aggregation import item_probabilities
from meljax.evaluation.forward import Model
from meljax.evaluation.scorer import score_split, window_order
from meljax.util.phrases import count


class BackgroundShares(NamedTuple):
    """How well the background is told from the other classes, in numbers of files.

    Attributes:
      files: files of the background.
      recognized: files of the background that are predicted as background.
      others: files of the other classes.
      taken: files of the other classes that are predicted as background.
    """

    files: int
    recognized: int
    others: int
    taken: int

    def text(self) -> str:
        """Returns '58 of 60 files recognized; 3 of 240 others taken for it'."""
        return (
            f"{self.recognized:,} of {count(self.files, 'file')} recognized; "
            f"{self.taken:,} of {self.others:,} others taken for it"
        )


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of the weights of one epoch on one split.

    Attributes:
      split: 'train', 'val' or 'test'.
      epoch: number of the epoch, from 1.
      chosen: whether the epoch was chosen for its validation score.
      labels: true class of each item.
      unscored: classes whose items accuracy and macro-F1 leave out.
      background: the background class, one of `unscored`; `None` if there is none.
      probabilities: calibrated probabilities of each item; a field or property of subclasses.
    """

    split: str
    epoch: int
    chosen: bool
    labels: Int[np.ndarray, " items"]
    unscored: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    background: int | None = dataclasses.field(default=None, kw_only=True)

    @property
    def predictions(self) -> Int[np.ndarray, " items"]:
        """Returns the most probable class of every item."""
        return self.probabilities.argmax(-1)

    @property
    def right(self) -> Bool[np.ndarray, " items"]:
        """Returns which predictions are right."""
        return self.predictions == self.labels

    @property
    def counted(self) -> Bool[np.ndarray, " items"]:
        """Returns which items count in accuracy and macro-F1."""
        return ~np.isin(self.labels, self.unscored)

    @property
    def background_shares(self) -> BackgroundShares | None:
        """Returns the counts for the background; `None` if there is no background class."""
        if self.background is None:
            return None
        of_background = self.labels == self.background
        taken = self.predictions == self.background
        return BackgroundShares(
            files=int(of_background.sum()),
            recognized=int((of_background & taken).sum()),
            others=int((~of_background).sum()),
            taken=int((~of_background & taken).sum()),
        )

    @functools.cached_property
    def confusion(self) -> Int[np.ndarray, "classes classes"]:
        """Returns the counts of (true class, predicted class), true classes in rows."""
        counts = np.zeros((self.probabilities.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    @property
    def accuracy(self) -> float:
        """Returns the share of right predictions among the items that count."""
        return metrics.accuracy(self.confusion, self.unscored)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Returns the 95 % Wilson interval of the accuracy."""
        counted = self.counted
        return statistics.wilson(int(self.right[counted].sum()), int(counted.sum()))

    @property
    def macro_f1(self) -> float:
        """Returns the mean of the classes' F1."""
        return float(metrics.macro_f1(self.confusion, self.unscored))

    @functools.cached_property
    def macro_f1_interval(self) -> tuple[float, float] | None:
        """Returns the 95 % bootstrap interval of macro-F1; `None` if there are no mistakes."""
        return statistics.bootstrap_macro_f1(self.confusion, self.unscored)


@dataclasses.dataclass(frozen=True)
class Scored(Scores):
    """Scores computed from logits; see `Scores` for the other attributes.

    Attributes:
      logits: logits of each window.
      item: index of each window's item.
      temperature: divides the logits before they become probabilities.
    """

    logits: Float[np.ndarray, "windows classes"]
    item: Int[np.ndarray, " windows"]
    temperature: float = 1.0

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, "items classes"]:
        """Returns the calibrated probabilities of each item."""
        return item_probabilities(self.logits, self.item, self.temperature)

    @functools.cached_property
    def raw_probabilities(self) -> Float[np.ndarray, "items classes"]:
        """Returns the probabilities without the temperature."""
        return item_probabilities(self.logits, self.item, 1.0)

    @functools.cached_property
    def only_counted(self) -> "Scored":
        """Returns the scores without the items that do not count."""
        counted = self.counted
        if counted.all():
            return self
        windows, number = counted[self.item], np.cumsum(counted) - 1
        return dataclasses.replace(
            self,
            logits=self.logits[windows],
            item=number[self.item[windows]],
            labels=self.labels[counted],
        )

    @property
    def loss(self) -> float:
        """Returns the mean cross-entropy, in nats, of the probabilities without temperature."""
        counted = self.only_counted
        return calibration.log_loss(counted.raw_probabilities, counted.labels)


@dataclasses.dataclass(frozen=True)
class Predicted(Scores):
    """Scores as `predictions.csv` holds them; `paths` are (path, start, end) of the items."""

    paths: tuple[tuple[str, str, str], ...]
    probabilities: Float[np.ndarray, "items classes"]


def score_weights(
    model: Model,
    data: DeviceSet,
    *,
    split: str,
    epoch: int,
    chosen: bool,
    temperature: float | None,
    unscored: tuple[int, ...] = (),
    background: int | None = None,
) -> Scored:
    """Returns the scores of a model on the split `data`.

    `temperature` `None` fits one to the items that count. The other arguments are attributes of
    `Scores`.
    """
    order = window_order(model, data)
    _, table = score_split(model, data, order)
    item = np.asarray(order.item).reshape(-1)
    logits = jax.device_get(table).reshape(-1, len(model.classes))[item != PADDING]
    item, labels = item[item != PADDING], np.asarray(data.label)
    classes = {"unscored": unscored, "background": background}
    scored = Scored(split, epoch, chosen, labels, logits, item, temperature or 1.0, **classes)
    if temperature is None:
        only = scored.only_counted
        fitted = calibration.fit_temperature(only.logits, only.item, only.labels)
        scored = dataclasses.replace(scored, temperature=fitted)
    return scored
