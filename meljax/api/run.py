"""Training, and what it leaves behind."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meljax.api.keys import data_keys
from meljax.api.model import Model, load
from meljax.config.files import default_workdir, read_settings
from meljax.evaluation.metrics import Row
from meljax.reports import data_summary
from meljax.runs.directory import REPORT
from meljax.runs.history import count_history, read_history
from meljax.runs.info import DataInfo, require_info
from meljax.util.console import quiet_libraries
from meljax.util.errors import UserError
from meljax.util.stop import StopRequest
from meljax.workflows.inspect import understand
from meljax.workflows.report import compare as compare_runs
from meljax.workflows.train import train as train_run


class Run:
    """A run in a directory.

    Attributes:
      workdir: the directory, with everything that docs and README describe.
    """

    def __init__(self, workdir: str | Path):
        self.workdir = Path(workdir)

    @property
    def history(self) -> list[Row]:
        """A dictionary per epoch: epoch, step, train_loss, val_loss, val_accuracy, val_f1, …"""
        return read_history(self.workdir, require_info(self.workdir))

    @property
    def report(self) -> Path:
        """The page of the run."""
        return self.workdir / REPORT

    @property
    def model(self) -> Model:
        """The model of the best epoch."""
        return load(self.workdir)

    def __repr__(self) -> str:
        return f"<run {self.workdir}, {count_history(self.workdir)} epochs>"


@quiet_libraries()
def train(
    data: str | Path | None = None,
    *,
    config: str | Path = "quick",
    workdir: str | Path | None = None,
    callback: Callable[[Row], None] | None = None,
    **keys: Any,
) -> Run:
    """Trains a classifier, or resumes a run, as `meljax train` does.

    Args:
      data: a folder, a table or a TFDS set as 'tfds:NAME'; `None`: the embedded voices.
      config: 'quick', 'cnn', 'resnet', or a Python file of settings.
      workdir: directory of the run; `None`: runs/<name of the data>-<name of the settings>.
      callback: called after each epoch with its row of `Run.history`; it may raise to stop.
      keys: settings by the last part of their name, `epochs=20`, or `**{'train.epochs': 20}`.

    Raises:
      UserError: the data, the directory or the settings cannot be used.
    """
    if callback is not None and not callable(callback):
        raise UserError(f"callback must be a function of a row, not {callback!r}")
    file = os.fspath(config)
    settings = read_settings(file, data_keys(data, keys))
    place = Path(workdir) if workdir else default_workdir(settings.data.path, file)
    stop = StopRequest()
    # Ctrl-C stops between two steps and saves the last one. Only the main thread can handle it.
    in_main = threading.current_thread() is threading.main_thread()
    with stop.handling_signals([signal.SIGINT] if in_main else [], limited=False):
        train_run(settings, place, stop, callback or (lambda row: None))
    return Run(place)


class Understood:
    """What was understood of a data set; printing it shows what `meljax inspect` prints."""

    def __init__(self, info: DataInfo):
        self.info = info

    def __repr__(self) -> str:
        warnings = (f"WARNING: {line}" for line in self.info.cautions())
        return "\n".join([data_summary.text(self.info), *warnings])


@quiet_libraries()
def inspect(
    data: str | Path | None = None, *, config: str | Path = "quick", **keys: Any
) -> Understood:
    """Returns what is understood of a data set, without training; arguments as in `train`.

    Raises:
      UserError: the data cannot be used.
    """
    return Understood(understand(read_settings(os.fspath(config), data_keys(data, keys))))


@quiet_libraries()
def compare(runs: Sequence[str | Path | Run], out: str | Path = "report") -> Path:
    """Writes a page that compares runs to the folder `out`; returns the page's path.

    Raises:
      UserError: there are fewer than two runs, a run cannot be read, or the page cannot be written.
    """
    if isinstance(runs, str | Path | Run) or len(runs) < 2:
        raise UserError("compare takes a list of at least two runs")
    paths = [each.workdir if isinstance(each, Run) else Path(each) for each in runs]
    return compare_runs(paths, Path(out))
