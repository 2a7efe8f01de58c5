"""`predictions.csv` and `calibration.json` of a run."""

import csv
import dataclasses
import itertools
from pathlib import Path

import numpy as np

from meljax.data.dataset import Dataset
from meljax.evaluation import calibration
from meljax.evaluation.calibration import Temperature
from meljax.evaluation.groups import named_groups
from meljax.evaluation.scores import Predicted, Scored
from meljax.runs.digests import check_digest
from meljax.runs.directory import CALIBRATION, PREDICTIONS, remedy
from meljax.runs.info import RunInfo
from meljax.runs.results import RunResults
from meljax.util.csv_file import csv_line
from meljax.util.errors import UserError
from meljax.util.files import write_atomically
from meljax.util.typed_json import from_json, to_json

COLUMNS = ("weights", "epoch", "split", "path", "start", "end", "group")
COLUMNS += ("label", "prediction", "probability")
"""Columns of `predictions.csv` before the probabilities of the classes."""


@dataclasses.dataclass(frozen=True)
class CalibrationScores:
    """Mean cross-entropy, in nats, and `calibration.calibration_error` of probabilities."""

    loss: float
    expected_calibration_error: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The content of `calibration.json`: scores before and after dividing by the temperature.

    Attributes:
      epoch: the epoch of the weights.
      temperature: divides the logits.
      note: why the temperature stays 1; '' if it was fitted.
      before: scores without the temperature.
      after: scores with it.
      cross_fitted: whether `after` scores each item with a temperature that was fitted to other
        items.
    """

    epoch: int
    temperature: float
    note: str
    before: CalibrationScores
    after: CalibrationScores
    cross_fitted: bool


def write_predictions(workdir: Path, results: RunResults, dataset: Dataset) -> None:
    """Writes `predictions.csv`: predictions of the last and the best weights for held-out files.

    A row per item: weights ('last', 'best'), epoch, split, path, start and end of a segment (s),
    group ('' if the item is a group of its own), label, prediction, probability, and the calibrated
    probability of every class, at full precision.
    """
    lines = [csv_line([*COLUMNS, *(f"p:{name}" for name in results.classes)])]
    for scored in results.scores:
        weights = ["best" if scored.chosen else "last", scored.epoch, scored.split]
        items = [dataset.items[i] for i in dataset.indices(scored.split)]
        groups = scored.item_groups.values
        for item, group, row in zip(items, groups, scored.probabilities.tolist(), strict=True):
            highest = max(row)
            prediction = results.classes[row.index(highest)]
            known = [*weights, item.path, item.start, item.end, group, item.label]
            lines.append(csv_line([*known, prediction, highest, *row]))
    write_atomically(workdir / PREDICTIONS, "".join(f"{line}\n" for line in lines))


def read_predictions(workdir: Path, info: RunInfo) -> list[Predicted]:
    """Returns the content of `predictions.csv`, in its order.

    Raises:
      UserError: the file is missing or damaged, or does not fit `info`.
    """
    path = workdir / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{workdir} has no {PREDICTIONS}; to write it: {remedy(workdir)}")
    check_digest(workdir, info, PREDICTIONS)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
        classes = {name: number for number, name in enumerate(info.data.classes)}
        if header != [*COLUMNS, *(f"p:{name}" for name in classes)]:
            raise ValueError
        splits = itertools.groupby(rows, lambda row: tuple(row[:3]))
        column = info.config["data.group"]
        unscored = tuple(classes[name] for name in info.data.unscored)
        background = classes.get(info.config["data.background"])
        scores = [
            dataclasses.replace(
                _predicted(*key, list(of_split), classes, column),
                unscored=unscored,
                background=background,
            )
            for key, of_split in splits
        ]
        if (scores[0].chosen, scores[0].split) != (False, "val"):
            raise ValueError
        if any(len(each.labels) != info.data.files[each.split] for each in scores):
            raise ValueError
    except (ValueError, KeyError, TypeError, IndexError, csv.Error):
        raise UserError(
            f"{path} is damaged or belongs to another run; to write it again: {remedy(workdir)}"
        ) from None
    return scores


def _predicted(
    weights: str,
    epoch: str,
    split: str,
    rows: list[list[str]],
    classes: dict[str, int],
    column: str,
) -> Predicted:
    """Returns the rows of one split and weights; raises `ValueError` or `KeyError` if damaged.

    `column` is the column of groups.
    """
    known = zip(*(row[3:9] for row in rows), strict=True)
    paths, starts, ends, groups, labels, predictions = known
    probabilities = np.array([[float(value) for value in row[10:]] for row in rows])
    predicted = Predicted(
        split=split,
        epoch=int(epoch),
        chosen={"last": False, "best": True}[weights],
        paths=tuple(zip(paths, starts, ends, strict=True)),
        labels=np.array([classes[label] for label in labels]),
        probabilities=probabilities,
        groups=named_groups(groups, paths, column),
    )
    sums_to_one = np.isclose(probabilities.sum(-1), 1).all()  # False for NaN and infinity
    if [classes[p] for p in predictions] != predicted.predictions.tolist() or not sums_to_one:
        raise ValueError
    return predicted


def calibration_of(scored: Scored) -> Calibration:
    """Returns the temperature of the scored weights, and the scores without and with it.

    Only items that count in accuracy count here. The scores with the temperature are computed from
    `Scored.held_out_probabilities`.
    """
    only = scored.only_counted

    def scores(probabilities: np.ndarray) -> CalibrationScores:
        return CalibrationScores(
            loss=calibration.log_loss(probabilities, only.labels),
            expected_calibration_error=calibration.calibration_error(probabilities, only.labels),
        )

    return Calibration(
        epoch=scored.epoch,
        temperature=scored.temperature,
        note=scored.calibration_note,
        before=scores(only.raw_probabilities),
        after=scores(scored.held_out_probabilities),
        cross_fitted=scored.cross_fitted,
    )


def write_calibration(workdir: Path, results: RunResults) -> None:
    """Writes `calibration.json` for the best weights, unless those are lost."""
    for scored in results.scores:
        if scored.chosen and scored.split == "val":
            write_atomically(workdir / CALIBRATION, to_json(calibration_of(scored)))


def read_calibration(workdir: Path, info: RunInfo) -> Calibration | None:
    """Returns the content of `calibration.json`; `None` if none was written.

    Raises:
      UserError: it is damaged, or no longer there.
    """
    path = workdir / CALIBRATION
    check_digest(workdir, info, CALIBRATION)
    if not path.exists():
        return None
    low, high = calibration.BOUNDS
    try:
        read = from_json(Calibration, path.read_text(encoding="utf-8"))
        if 0.9 * low < read.temperature < 1.1 * high:
            return read
    except (ValueError, OSError):
        pass
    raise UserError(f"{path} is damaged; to write it again: {remedy(workdir)}")


def read_temperature(workdir: Path, info: RunInfo, epoch: int) -> Temperature:
    """Returns the temperature of the weights of `epoch`; 1, with a note, if there is none."""
    exists = (workdir / CALIBRATION).exists()
    recorded = read_calibration(workdir, info) if exists else None
    if recorded and recorded.epoch == epoch:
        return Temperature(recorded.temperature, recorded.note)
    return Temperature(note=f"no temperature for epoch {epoch}; to fit one: {remedy(workdir)}")
