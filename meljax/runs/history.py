"""The history of a run: `metrics.jsonl`, a row per epoch."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meljax.evaluation.metrics import Row, rank
from meljax.runs.digests import check_digest
from meljax.runs.directory import METRICS, remedy
from meljax.runs.info import RunInfo
from meljax.util.errors import UserError
from meljax.util.files import write_atomically, write_errors
from meljax.util.typed_json import parse_json

MEASURED = (
    *(f"{split}_{name}" for split in ("train", "val") for name in ("loss", "accuracy", "f1")),
    "seconds",
    "images_per_second",
)
"""Columns besides epoch and step."""


def read_history(workdir: Path, info: RunInfo) -> list[Row]:
    """Returns a row for each epoch.

    Raises:
      UserError: rows are missing or damaged.
    """
    path = workdir / METRICS
    check_digest(workdir, info, METRICS)
    try:
        rows = [parse_json(line) for line in _lines(path)]
        fits = [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        fits = fits and all(math.isfinite(row[name]) for row in rows for name in MEASURED)
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits or len(rows) < info.scored:
        raise UserError(f"{path} is damaged; to write it again: {remedy(workdir)}")
    return rows


def repair_history(workdir: Path, rows: Sequence[Row], cut: bool) -> None:
    """Makes the file begin with `rows`, those of a checkpoint.

    Later rows are removed if `cut`, or if the file began with other rows.
    """
    lines = [_line(row) for row in rows]
    found = [f"{line}\n" for line in _lines(workdir / METRICS)]
    if found[: len(lines)] != lines or (cut and len(found) > len(lines)):
        write_atomically(workdir / METRICS, "".join(lines))


def count_history(workdir: Path) -> int:
    """Returns the number of rows."""
    return len(_lines(workdir / METRICS))


def append_history(workdir: Path, row: Row) -> None:
    """Appends one epoch at full precision and flushes it to disk."""
    path = workdir / METRICS
    with write_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def column(history: Sequence[Row], name: str) -> Float[np.ndarray, " epochs"]:
    """Returns the values of one column, epoch by epoch."""
    return np.array([row[name] for row in history], float)


def best_epoch(history: Sequence[Row]) -> int:
    """Returns the epoch with the best validation scores, from 1; see `rank`."""
    return int(max(history, key=rank)["epoch"])


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.exists() else []
