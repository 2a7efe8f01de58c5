"""The directory of a run: its files, its lock, and how it is created."""

import contextlib
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from meljax.data.dataset import Dataset
from meljax.runs.info import CONFIG as CONFIG
from meljax.runs.info import RunInfo, read_info, write_info
from meljax.util.csv_file import csv_line
from meljax.util.errors import UserError
from meljax.util.files import is_locked, locked_file, write_atomically

SPLIT = "split.csv"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.csv"
CALIBRATION = "calibration.json"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
LOCK = ".lock"


@contextlib.contextmanager
def locked(
    workdir: Path, info: RunInfo | None, otherwise: str = "use another directory"
) -> Iterator[None]:
    """Locks `workdir`, which is created if needed; a killed process releases its lock.

    `otherwise` says what the user can do while another process holds the lock.

    Raises:
      UserError: another process is training there, or has trained since `read_info` returned
        `info`; or the directory cannot be written.
    """
    taken = f"another process is training in {workdir}; wait for it, or {otherwise}"
    with locked_file(workdir / LOCK, taken):
        if read_info(workdir) != info:
            raise UserError(f"another process has just trained in {workdir}; run the command again")
        yield


@contextlib.contextmanager
def removal_explained(workdir: Path) -> Iterator[None]:
    """Raises a `UserError` in place of an error in the block if `workdir` was removed."""
    try:
        yield
    except (OSError, UserError):
        if not is_removed(workdir):
            raise
        # What was being written may have come back, and would be taken for the user's own files.
        shutil.rmtree(workdir / CHECKPOINTS, ignore_errors=True)
        with contextlib.suppress(OSError):
            (workdir / METRICS).unlink()
        raise UserError(
            f"{workdir} was removed or moved during training; to start over, run the same command "
            "again"
        ) from None


def check_exists(workdir: Path) -> None:
    """Raises `FileNotFoundError` if `workdir` was removed. Call it before writing there."""
    if is_removed(workdir):
        raise FileNotFoundError(workdir)


def is_removed(workdir: Path) -> bool:
    """Returns whether the directory of a run no longer holds its `config.json`."""
    return not (workdir / CONFIG).exists()


def in_training(workdir: Path) -> bool:
    """Returns whether another process has `locked` the run in `workdir`; changes nothing."""
    return is_locked(workdir / LOCK)


def create(workdir: Path, info: RunInfo, dataset: Dataset) -> None:
    """Writes `config.json` and `split.csv` to the existing directory `workdir`."""
    write_info(workdir, info)
    rows = zip(dataset.items, dataset.splits, dataset.digests, strict=True)
    lines = [
        csv_line(["path", "start", "end", "label", "group", "split", "sha256"]),
        *(csv_line([i.path, i.start, i.end, i.label, i.group, s, digest]) for i, s, digest in rows),
    ]
    write_atomically(workdir / SPLIT, "".join(f"{line}\n" for line in lines))


def remedy(workdir: Path) -> str:
    """Returns the command that rewrites a run's history, predictions, calibration and report."""
    return f"meljax report {shlex.quote(str(workdir))}"
