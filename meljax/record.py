"""Runs told by their own files alone: no weights, no data, hence at once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meljax import runs
from meljax.errors import UserError
from meljax.results import RunRecord

_FACTS = {"config", "weights", "data", "versions", "device_count", "device_kind", "platform"}
_DATA = {"kind", "classes", "files", "ignored", "skipped", "warnings", "fingerprint"}


def read(paths: Sequence[Path]) -> list[RunRecord]:
    """Returns the records of the runs in the directories `paths`, under names that differ.

    Raises:
      UserError: one of them is no run, is there twice, has not been scored, or is damaged.
    """
    real = [path.resolve() for path in paths]
    for path, place in zip(paths, real, strict=True):
        if real.count(place) > 1:
            raise UserError(f"{path} is given twice; name each run once")
    names = distinct_names([Path(os.path.abspath(path)) for path in paths])
    return [_read_one(path, name) for path, name in zip(paths, names, strict=True)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns each path's last part; of those that share it, as many as tell them apart."""
    names = []
    for path in paths:
        alike = [other for other in paths if other.name == path.name]
        parts = 1
        while len({other.parts[-parts:] for other in alike}) < len(alike):
            parts += 1
        names.append("/".join(path.parts[-parts:]))
    return names


def _read_one(path: Path, name: str) -> RunRecord:
    facts = recorded_facts(path)
    scores = runs.read_predictions(path, facts)
    epochs = scores[0].epoch
    return RunRecord(
        name=name,
        path=path,
        facts=facts,
        history=runs.read_history(path, epochs),
        unscored=runs.count_history(path) - epochs,
        scores=scores,
        calibration=runs.read_calibration(path),
    )


def recorded_facts(path: Path) -> dict[str, Any]:
    """Returns what `config.json` of the run in `path` holds.

    Raises:
      UserError: no run lies there, or its `config.json` is damaged.
    """
    runs.check_is_run(path)
    facts = runs.recorded(path)
    if not (facts.keys() >= _FACTS and facts["data"].keys() >= _DATA):
        raise UserError(f"{path / runs.CONFIG} is damaged: it lacks what a run records")
    return facts
