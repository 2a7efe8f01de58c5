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
from meljax.evaluation.calibration import Temperature
from meljax.evaluation.forward import Model
from meljax.evaluation.groups import Groups
from meljax.evaluation.scorer import score_split, window_order
from meljax.evaluation.statistics import Interval
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
      groups: of the items; `None`: each item is a group of its own.
      probabilities: calibrated probabilities of each item; a field or property of subclasses.
    """

    split: str
    epoch: int
    chosen: bool
    labels: Int[np.ndarray, " items"]
    unscored: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    background: int | None = dataclasses.field(default=None, kw_only=True)
    groups: Groups | None = dataclasses.field(default=None, kw_only=True)

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

    @functools.cached_property
    def item_groups(self) -> Groups:
        """Returns the groups of all items; without `groups`, each item is a group of its own."""
        return self.groups or Groups(("",) * len(self.labels))

    @functools.cached_property
    def counted_groups(self) -> Groups:
        """Returns the groups of the items that count."""
        return self.item_groups.of(self.counted)

    @property
    def grouped(self) -> bool:
        """Returns whether some items that count share a group, so that groups decide intervals."""
        return self.counted_groups.shared

    @functools.cached_property
    def accuracy_interval(self) -> Interval:
        """Returns the 95 % interval of the accuracy."""
        return statistics.share_interval(
            self.right[self.counted], self.counted_groups, self.grouped
        )

    def recall_interval(self, label: int) -> Interval:
        """Returns the 95 % interval of the recall of a class that has items."""
        return self._share_interval(self.labels == label)

    def precision_interval(self, label: int) -> Interval:
        """Returns the 95 % interval of the precision of a class that is predicted."""
        return self._share_interval(self.predictions == label)

    def _share_interval(self, among: Bool[np.ndarray, " items"]) -> Interval:
        """Returns the interval of the share of right predictions `among` some items."""
        groups = self.item_groups.of(among)
        # Windows of the background may share recordings although no items that count do.
        grouped = self.grouped or groups.shared
        return statistics.share_interval(self.right[among], groups, grouped)

    @property
    def macro_f1(self) -> float:
        """Returns the mean of the classes' F1."""
        return float(metrics.macro_f1(self.confusion, self.unscored))

    @functools.cached_property
    def macro_f1_interval(self) -> Interval:
        """Returns the 95 % interval of macro-F1."""
        return statistics.macro_f1_interval(
            self.labels[self.counted],
            self.predictions[self.counted],
            self.confusion,
            self.unscored,
            self.counted_groups,
            self.grouped,
        )


@dataclasses.dataclass(frozen=True)
class Scored(Scores):
    """Scores computed from logits; see `Scores` for the other attributes.

    Attributes:
      logits: logits of each window.
      item: index of each window's item.
      temperature: divides the logits before they become probabilities.
      calibration_note: why the temperature stays 1; '' if it was fitted.
      fitted_here: whether the temperature was chosen on these items.
    """

    logits: Float[np.ndarray, "windows classes"]
    item: Int[np.ndarray, " windows"]
    temperature: float = 1.0
    calibration_note: str = dataclasses.field(default="", kw_only=True)
    fitted_here: bool = dataclasses.field(default=False, kw_only=True)

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
            groups=self.counted_groups,
        )

    @functools.cached_property
    def cross_fitted(self) -> bool:
        """Returns whether `held_out_probabilities` are those of `calibration.cross_fit`."""
        enough = self.counted_groups.number >= calibration.FOLDS
        return self.fitted_here and not self.calibration_note and enough

    @functools.cached_property
    def held_out_probabilities(self) -> Float[np.ndarray, "counted classes"]:
        """Returns the probabilities that measure the calibration, of the items that count.

        If the temperature was fitted to these items and there are enough groups, they are
        cross-fitted. Otherwise they are the calibrated probabilities.
        """
        only = self.only_counted
        if not self.cross_fitted:
            return only.probabilities
        return calibration.cross_fit(only.logits, only.item, only.labels, self.counted_groups)

    @property
    def chosen_temperature(self) -> Temperature:
        """Returns the temperature with its note."""
        return Temperature(self.temperature, self.calibration_note)

    def with_temperature(self, temperature: Temperature, fitted_here: bool = False) -> "Scored":
        """Returns the scores with another temperature."""
        return dataclasses.replace(
            self,
            temperature=temperature.value,
            calibration_note=temperature.note,
            fitted_here=fitted_here,
        )

    def calibrated(self) -> "Scored":
        """Returns the scores with the temperature that is chosen on the items that count."""
        only = self.only_counted
        chosen = calibration.choose_temperature(only.logits, only.item, only.labels)
        return self.with_temperature(chosen, fitted_here=True)

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
    temperature: Temperature | None,
    unscored: tuple[int, ...] = (),
    background: int | None = None,
    groups: Groups | None = None,
) -> Scored:
    """Returns the scores of a model on the split `data`.

    `temperature` `None` chooses one on the items that count. The other arguments are attributes of
    `Scores`.
    """
    order = window_order(model, data)
    _, table = score_split(model, data, order)
    item = np.asarray(order.item).reshape(-1)
    logits = jax.device_get(table).reshape(-1, len(model.classes))[item != PADDING]
    item, labels = item[item != PADDING], np.asarray(data.label)
    attributes = {"unscored": unscored, "background": background, "groups": groups}
    scored = Scored(split, epoch, chosen, labels, logits, item, **attributes)
    return scored.calibrated() if temperature is None else scored.with_temperature(temperature)
