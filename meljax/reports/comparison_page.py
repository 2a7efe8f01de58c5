"""The page of several runs: scores, curves, paired tests and settings that differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from meljax.config import KEYS
from meljax.evaluation import statistics
from meljax.models.registry import NETWORKS
from meljax.reports import figures, html_page, ranking
from meljax.reports.html_page import Files
from meljax.runs.directory import REPORT, remedy
from meljax.runs.history import best_epoch, column
from meljax.runs.predictions import Calibration
from meljax.runs.record import RunRecord

READ_PAIRS = 6
"""With more tests than this, their sentences are folded."""

CURVES = {
    "training_loss": ("train_loss", "Training loss"),
    "validation_loss": ("val_loss", "Validation loss"),
    "accuracy": ("val_accuracy", "Accuracy"),
    "f1": ("val_f1", "Macro-F1"),
}
"""Column and title of each figure, by file name."""


class Run(NamedTuple):
    """A run: its record, and what else the page shows of it.

    Attributes:
      number: '#1 ', … if the names in the figures are ambiguous or not drawable, else ''.
      label: name in the figures.
      color: color in the figures.
      url: URL of the run's own page, if it has one.
      best: its best epoch.
      calibration: the calibration of the best epoch, if that is known.
    """

    record: RunRecord
    number: str
    label: str
    color: str
    url: str | None
    network: str
    best: int
    calibration: Calibration | None


class Difference(NamedTuple):
    """A setting in which runs differ: a value per run, `None` where there is none."""

    key: str
    meaning: str
    values: list[str | None]


def write_comparison(directory: Path, records: Sequence[RunRecord]) -> Path:
    """Writes `report.html` to `directory`; returns the page's path."""
    runs = _runs(records, directory)
    return html_page.write(directory, lambda files: page(runs, files), _figures(runs))


def page(runs: Sequence[Run], files: Files) -> str:
    """Returns the page."""
    records = [run.record for run in runs]
    tests = ranking.paired_tests(records)
    pairs = len(records) * (len(records) - 1) // 2
    return html_page.render(
        "comparison.html.j2",
        title=ranking.enumerate_names([record.name for record in records]),
        files=files,
        headline=ranking.headline(records),
        warnings=_warnings(records),
        unscored=[record for record in records if record.unscored > 0],
        runs=runs,
        scored={(each.split, each.chosen) for record in records for each in record.scores},
        curves=CURVES,
        tests=tests,
        level=ranking.significance_level(tests),
        with_p=ranking.number_of_p_values(tests),
        grouped=any(scored.grouped for record in records for scored in record.scores),
        min_groups=statistics.MIN_GROUPS,
        folded=len(tests) > READ_PAIRS,
        all_paired=sum(test.split == "val" for test in tests) == pairs,
        differences=_differences(records),
        p_text=ranking.p_text,
        remedy=remedy,
    )


def _runs(records: Sequence[RunRecord], directory: Path) -> list[Run]:
    """Returns the runs as a page in `directory` shows them."""
    names, runs = [record.name for record in records], []
    short = [figures.drawable_name(names, i) for i in range(len(names))]
    numbered = len(set(short)) < len(names) or not all(map(figures.drawable, names))
    for i, record in enumerate(records):
        number, model = f"#{i + 1} " if numbered else "", record.info.config["model.name"]
        own_page = record.path / REPORT
        calibration, best = record.calibration, record.scored("val", chosen=True)
        is_of_best = calibration and best and calibration.epoch == best.epoch
        runs.append(
            Run(
                record=record,
                number=number,
                # The short form of a name that cannot be drawn is its number.
                label=f"{number if figures.drawable(record.name) else ''}{short[i]} ({model})",
                color=figures.RUNS[i],
                url=html_page.link(own_page, directory) if own_page.exists() else None,
                network=NETWORKS[model].display_name,
                best=best_epoch(record.history),
                calibration=calibration if is_of_best else None,
            )
        )
    return runs


def _warnings(records: Sequence[RunRecord]) -> dict[str, str]:
    """Returns {warning: the names of its runs}."""
    found: dict[str, list[str]] = {}
    for record in records:
        for line in record.info.cautions():
            found.setdefault(line, []).append(record.name)
    return {line: ranking.enumerate_names(names) for line, names in found.items()}


def _differences(records: Sequence[RunRecord]) -> list[Difference]:
    """Returns the settings and versions in which the runs differ."""
    settings = []
    for info in (record.info for record in records):
        versions = {f"version of {name}": v for name, v in info.session.versions.items()}
        settings.append({key: repr(value) for key, value in info.config.items()} | versions)
    found = []
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key) for each in settings]
        if any(value != values[0] for value in values):
            meaning = KEYS[key].metadata["doc"] if key in KEYS else ""
            found.append(Difference(key, meaning, values))
    return found


def _figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """Yields each figure's file name and figure."""
    for file, (key, title) in CURVES.items():
        is_loss = key.endswith("loss")
        curves = []
        for run in runs:
            history = run.record.history
            curves.append(
                figures.RunCurves(
                    label=run.label,
                    color=run.color,
                    epochs=column(history, "epoch").astype(int),
                    solid=column(history, key),
                    dashed=None if is_loss else column(history, key.replace("val", "train")),
                    best=None if is_loss or len(history) == 1 else run.best,
                )
            )
        yield f"{file}.png", figures.compared_curves(curves, title, losses=is_loss)
