"""Checks whether a run may be resumed: same settings, same data."""

from pathlib import Path

from meljax.config import KEYS, Config
from meljax.data.dataset import Dataset
from meljax.runs.directory import REPORT
from meljax.runs.info import RunInfo, absolute_settings
from meljax.util.errors import UserError


def check_resume(workdir: Path, info: RunInfo, config: Config) -> None:
    """Raises `UserError`, which names the keys that differ, unless `config` may resume the run.

    `resume` in a key's declaration says whether it may differ. Data may have moved: their contents
    are checked by `check_same_data`.
    """
    now = absolute_settings(config)
    changed = [
        f"{key} (was {info.config[key]!r}, now {value!r})"
        for key, value in sorted(now.items())
        if value != info.config[key] and KEYS[key].metadata["resume"] == "same"
    ]
    if changed:
        raise UserError(
            f"the run in {workdir} was started with other settings: {', '.join(changed)}; "
            "use another --workdir"
        )


def check_same_data(workdir: Path, info: RunInfo, dataset: Dataset) -> None:
    """Raises `UserError` unless files, labels and splits are the same as when the run started."""
    if info.data.fingerprint == dataset.fingerprint:
        return
    raise UserError(
        f"the data changed since the run in {workdir} was started: paths, contents, labels, groups "
        f"or splits differ from {workdir / 'split.csv'}; restore the data in "
        f"{info.config['data.path']!r}, or use another --workdir"
    )


def is_finished(workdir: Path, info: RunInfo, config: Config) -> bool:
    """Returns whether all epochs of `config` are trained and the report exists."""
    return info.finished >= config.train.epochs and (workdir / REPORT).is_file()
