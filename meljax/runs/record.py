"""Loads the saved results of runs without their data or weights."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from meljax.evaluation.metrics import Row
from meljax.evaluation.scores import Predicted
from meljax.runs.directory import METRICS, remedy
from meljax.runs.history import read_history
from meljax.runs.info import RunInfo, require_info
from meljax.runs.predictions import Calibration, read_calibration, read_predictions
from meljax.util.errors import UserError


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The saved results of a run.

    Attributes:
      name: unique name among the runs that were read together.
      history: a row per epoch, up to the last scored one.
      unscored: number of later epochs in `metrics.jsonl`.
      scores: by split (validation, test), then by weights (last epoch, best epoch).
    """

    name: str
    path: Path
    info: RunInfo
    history: list[Row]
    unscored: int
    scores: list[Predicted]
    calibration: Calibration | None

    def scored(self, split: str, chosen: bool = False) -> Predicted | None:
        """Returns the scores of the last or, if `chosen`, the best epoch on a split, if any."""
        found = (each for each in self.scores if (each.split, each.chosen) == (split, chosen))
        return next(found, None)


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Returns the records of the runs in the directories `paths`, with unique names.

    Raises:
      UserError: a directory is not a run, is given twice, has not been scored, or is damaged.
    """
    real = [path.resolve() for path in paths]
    for path, place in zip(paths, real, strict=True):
        if real.count(place) > 1:
            raise UserError(f"{path} is given twice; name each run once")
    names = _distinct_names([Path(os.path.abspath(path)) for path in paths])
    records = []
    for path, name in zip(paths, names, strict=True):
        info = require_info(path)
        scores, history = read_predictions(path, info), read_history(path, info)
        epochs = scores[0].epoch
        scored, unscored = history[:epochs], len(history) - epochs
        if unscored < 0:
            raise UserError(f"{path / METRICS} is damaged; to write it again: {remedy(path)}")
        calibration = read_calibration(path, info)
        records.append(RunRecord(name, path, info, scored, unscored, scores, calibration))
    return records


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns the last part of each path; more parts where several paths share the last one."""
    names = []
    for path in paths:
        alike = [other for other in paths if other.name == path.name]
        parts = 1
        while len({other.parts[-parts:] for other in alike}) < len(alike):
            parts += 1
        names.append("/".join(path.parts[-parts:]))
    return names
