"""Tells of runs, on a page with figures:

  python -m meljax.report RUN [RUN ...] [--out DIR]

One run: its scores, curves, calibration, confusions and worst mistakes, all made anew from its
weights and data. Without --out in RUN itself, where predictions.csv and calibration.json are made
anew too. Several runs: beside each other, from what they have left. Without --out in 'report'.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meljax import backend, cli, finish, record, runs, steps, summary, tasks
from meljax import config as config_lib
from meljax.checkpoint import Checkpoints
from meljax.config import Config
from meljax.data.load import VoiceSet, load
from meljax.errors import UserError
from meljax.metrics import Row
from meljax.pages import comparison, figures, parts
from meljax.pages.run import write_report
from meljax.paths import cache_dir
from meljax.progress import say
from meljax.session import Session
from meljax.state import TrainState


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (2: something the caller can mend)."""
    parser = cli.parser("report", __doc__)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="directory of a run")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where report.html and figures/ are written"
    )
    arguments = parser.parse_args(argv)
    return cli.run(lambda: _report(arguments.runs, arguments.out))


def _report(paths: list[Path], out: Path | None) -> int:
    if len(paths) > 1:
        page = compare(paths, out or Path("report"))
    elif out is None or out.resolve() == paths[0].resolve():
        page = report_in_place(paths[0])
    else:
        page = report_elsewhere(paths[0], out)
    say(f"report: {page}")
    return 0


def compare(paths: Sequence[Path], out: Path) -> Path:
    """Writes the page of several runs to `out`; returns the page's path.

    Raises:
      UserError: runs or place do not allow it.
    """
    if len(paths) > len(figures.RUNS):
        raise UserError(
            f"{len(paths)} runs are too many to tell apart; give {len(figures.RUNS)} at most"
        )
    records = record.read(paths)
    _check_outside(out, paths)
    say(comparison.headline(records))
    return comparison.write_comparison(out, records)


def report_in_place(run: Path) -> Path:
    """Renews predictions, calibration and page of a run; returns the page's path.

    Raises:
      UserError: the run is being trained, has no epoch yet, or its data are gone or others.
    """
    facts = record.recorded_facts(run)
    config, voices = _read(run, facts)
    with runs.locked(run, facts), contextlib.closing(_checkpoints(run)) as checkpoints:
        session = _session(run, facts, config, voices, checkpoints)
        results = finish.finish(session, *_reached(session))
    say(summary.text(results))
    return run / runs.REPORT


def report_elsewhere(run: Path, out: Path) -> Path:
    """Writes the page of a run to `out` and nothing to the run; returns the page's path.

    Raises:
      UserError: as `report_in_place`; or a page cannot be written to `out`.
    """
    _check_outside(out, [run])
    facts = record.recorded_facts(run)
    config, voices = _read(run, facts)
    with contextlib.closing(_checkpoints(run)) as checkpoints:
        session = _session(run, facts, config, voices, checkpoints)
        results = finish.score(session, *_reached(session))
    say(summary.text(results))
    return write_report(out, results, run)


def _check_outside(out: Path, paths: Sequence[Path]) -> None:
    """Raises `UserError` unless a page may be written to `out`."""
    parts.check_place(out)
    for run in paths:
        if run.resolve() in out.resolve().parents:
            raise UserError(f"--out {out} lies in the run {run}; give another directory")


def _read(run: Path, facts: dict[str, Any]) -> tuple[Config, VoiceSet]:
    """Returns the settings and the data of a run, which are those it began with."""
    backend.set_up()
    config = config_lib.from_flat(facts["config"])
    if not (run / runs.CHECKPOINTS).is_dir():
        raise _no_epoch(run)
    try:
        voices = load(config, cache_dir())
    except UserError as error:
        raise UserError(f"the data of {run} cannot be read: {error}", error.details) from None
    runs.check_same_data(run, facts, voices)
    return config, voices


def _checkpoints(run: Path) -> Checkpoints:
    # A report only looks: even what is damaged stays as it is.
    return Checkpoints(run / runs.CHECKPOINTS, read_only=True)


def _session(
    run: Path, facts: dict[str, Any], config: Config, voices: VoiceSet, checkpoints: Checkpoints
) -> Session:
    task = tasks.make_task(config, voices)
    return Session(
        config=config,
        workdir=Path(os.path.abspath(run)),  # whose last part is the run's name
        facts=facts,
        voices=voices,
        task=task,
        sets=tasks.make_device_sets(task, voices),
        checkpoints=checkpoints,
        check=lambda: None,
    )


def _reached(session: Session) -> tuple[TrainState, list[Row]]:
    """Returns the state that training has reached, and a row for each epoch up to it."""
    restored = session.checkpoints.restore_latest(steps.abstract_state(session.task))
    if restored is None:
        raise _no_epoch(session.workdir)
    state, meta = restored
    return state, runs.read_history(session.workdir, meta["epoch"])


def _no_epoch(run: Path) -> UserError:
    return UserError(f"{run} has not finished an epoch; there is nothing to report yet")


if __name__ == "__main__":
    cli.leave(main())
