"""Writes the report of one run, or compares several."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from meljax.data.dataset import load
from meljax.evaluation.metrics import Row
from meljax.reports import comparison_page, figures, html_page, ranking, summary
from meljax.reports.run_page import write_report
from meljax.runs.directory import CHECKPOINTS, REPORT, in_training, locked
from meljax.runs.history import repair_history
from meljax.runs.info import RunInfo, require_info
from meljax.runs.record import read_records
from meljax.runs.results import RunResults
from meljax.runs.resume import check_same_data
from meljax.runs.session import Session
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import TrainState, abstract_state
from meljax.training.task_setup import make_device_sets, make_task
from meljax.util import devices
from meljax.util.errors import UserError
from meljax.util.files import cache_dir
from meljax.util.progress import say
from meljax.workflows import finish


def report(paths: Sequence[Path], out: Path | None) -> Path:
    """Writes the report of one or several runs to `out`; returns the page's path.

    The default of `out` is the run itself, or the folder 'report' for several.

    Raises:
      UserError: a run cannot be read, or the page cannot be written to `out`.
    """
    if len(paths) > 1:
        return compare(paths, out or Path("report"))
    if out is None or out.resolve() == paths[0].resolve():
        return report_in_place(paths[0])
    return report_elsewhere(paths[0], out)


def compare(paths: Sequence[Path], out: Path) -> Path:
    """Writes the page of several runs to `out`; see `report`."""
    if len(paths) > len(figures.RUNS):
        raise UserError(
            f"{len(paths)} runs are too many for one page; give at most {len(figures.RUNS)}"
        )
    records = read_records(paths)
    _check_outside(out, paths)
    say(ranking.headline(records))
    return comparison_page.write_comparison(out, records)


def report_in_place(run: Path) -> Path:
    """Rewrites predictions, calibration and page of a run; returns the page's path.

    Raises:
      UserError: the run is being trained, has not finished an epoch, or its data are missing or
        changed.
    """
    info = require_info(run)
    # Training writes the same files when it ends, so no report of fewer epochs may be written now.
    otherwise = "write a report of the saved epochs to another folder, such as --out report"
    with locked(run, info, otherwise), _session(run, info) as session:
        state, history = _last_epoch(session)
        repair_history(run, history, cut=False)
        results = finish.finish(session, state, history, info.finished)
    _say_scores(results)
    return run / REPORT


def report_elsewhere(run: Path, out: Path) -> Path:
    """Writes the page of a run to `out`, and nothing to the run; returns the page's path.

    Another process may be training the run.
    """
    _check_outside(out, [run])
    with _session(run, require_info(run)) as session:
        results = finish.score(session, *_last_epoch(session))
    results = dataclasses.replace(results, in_training=in_training(run))
    _say_scores(results)
    return write_report(out, results, run)


def _say_scores(results: RunResults) -> None:
    say(summary.text(results))
    if results.unfinished:
        say(f"not finished: {results.unfinished}")


def _check_outside(out: Path, paths: Sequence[Path]) -> None:
    """Raises `UserError` if `out` is in a run or has a page that meljax did not write."""
    html_page.check_place(out)
    for run in paths:
        if run.resolve() in out.resolve().parents:
            raise UserError(f"--out {out} is inside the run {run}; use another directory")


@contextlib.contextmanager
def _session(run: Path, info: RunInfo) -> Iterator[Session]:
    """Yields a run with its data, which must be unchanged."""
    devices.set_up()
    if not (run / CHECKPOINTS).is_dir():
        raise _no_epoch(run)
    config = info.settings()
    try:
        dataset = load(config, cache_dir())
    except UserError as error:
        raise UserError(f"the data of {run} cannot be read: {error}", error.details) from None
    check_same_data(run, info, dataset)
    task = make_task(config, dataset)
    sets = make_device_sets(task, dataset)
    # Opened last, because a process that trains the run replaces checkpoints meanwhile. A report
    # changes no checkpoint, not even a damaged one.
    with contextlib.closing(Checkpoints(run / CHECKPOINTS, read_only=True)) as checkpoints:
        yield Session(
            config=config,
            workdir=Path(os.path.abspath(run)),  # its last part is the run's name
            info=info,
            dataset=dataset,
            task=task,
            sets=sets,
            checkpoints=checkpoints,
        )


def _last_epoch(session: Session) -> tuple[TrainState, list[Row]]:
    """Returns the latest saved state, and a row for each epoch up to it."""
    restored = session.checkpoints.restore_latest(abstract_state(session.task), whole=True)
    if restored is None:
        raise _no_epoch(session.workdir)
    state, meta = restored
    return state, list(meta.history)


def _no_epoch(run: Path) -> UserError:
    return UserError(f"{run} has not finished an epoch; there is nothing to report yet")
