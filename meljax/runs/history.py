"""The history of a run: `metrics.jsonl`, a row per epoch."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meljax.evaluation.metrics import Row, rank
from meljax.runs.directory import METRICS
from meljax.util.errors import UserError
from meljax.util.files import write_atomically, write_errors

MEASURED = (
    *(f"{split}_{name}" for split in ("train", "val") for name in ("loss", "accuracy", "f1")),
    "seconds",
    "images_per_second",
)
"""Columns besides epoch and step."""


def read_history(workdir: Path, epochs: int) -> list[Row]:
    """Returns the first `epochs` rows.

    Raises:
      UserError: rows of these epochs are missing or damaged.
    """
    path = workdir / METRICS
    try:
        rows = [json.loads(line) for line in _lines(path)[:epochs]]
        fits = [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        fits = fits and all(math.isfinite(row[name]) for row in rows for name in MEASURED)
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise UserError(
            f"{path} does not have the {epochs} epochs of the checkpoint; restore the file, or use "
            "another directory"
        )
    return rows


def cut_history(workdir: Path, epochs: int) -> None:
    """Removes the rows after the first `epochs`: epochs without checkpoint are trained again."""
    lines = _lines(workdir / METRICS)
    if len(lines) > epochs:
        write_atomically(workdir / METRICS, "".join(f"{line}\n" for line in lines[:epochs]))


def count_history(workdir: Path) -> int:
    """Returns the number of rows."""
    return len(_lines(workdir / METRICS))


def append_history(workdir: Path, row: Row) -> None:
    """Appends one epoch at full precision and flushes it to disk."""
    path = workdir / METRICS
    with write_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def column(history: Sequence[Row], name: str) -> Float[np.ndarray, " epochs"]:
    """Returns the values of one column, epoch by epoch."""
    return np.array([row[name] for row in history], float)


def best_epoch(history: Sequence[Row]) -> int:
    """Returns the epoch with the best validation scores, from 1; see `rank`."""
    return int(max(history, key=rank)["epoch"])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
