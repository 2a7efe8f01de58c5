"""The page of several runs: scores, curves, paired tests and settings that differ."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from meljax.config import KEYS
from meljax.data.manifest import noun
from meljax.evaluation.scores import Predicted
from meljax.models.registry import NETWORKS
from meljax.reports import figures, html_page
from meljax.reports.html_page import (
    ABSENT,
    SPLIT_WORDS,
    code,
    duration,
    escape,
    img,
    note,
    section,
    share,
    side_by_side,
    table,
)
from meljax.reports.ranking import (
    NO_EVIDENCE,
    Pair,
    enumerate_names,
    headline,
    p_text,
    paired_tests,
    significance_level,
)
from meljax.runs.directory import REPORT, remedy
from meljax.runs.history import best_epoch, column
from meljax.runs.info import RunInfo
from meljax.runs.predictions import Calibration
from meljax.runs.record import RunRecord
from meljax.util.phrases import count

READ_PAIRS = 6
"""Up to this many tests, their sentences are shown; the sentences of more tests are folded."""

CURVES = {
    "training_loss": ("train_loss", "Training loss"),
    "validation_loss": ("val_loss", "Validation loss"),
    "accuracy": ("val_accuracy", "Accuracy"),
    "f1": ("val_f1", "Macro-F1"),
}
"""Column and title of each figure, by file name."""


def write_comparison(directory: Path, records: Sequence[RunRecord]) -> Path:
    """Writes `report.html` and its figures to `directory`; returns the page's path."""
    links = {
        record.name: html_page.link(record.path / REPORT, directory)
        for record in records
        if (record.path / REPORT).exists()
    }
    return html_page.write(directory, page(records, links), _figures(records))


def page(records: Sequence[RunRecord], links: Mapping[str, str]) -> str:
    """Returns the page, as HTML; `links` are the URLs of the runs' own pages, by name."""
    title = enumerate_names([record.name for record in records])
    sections = (
        f'<p class="lead">{escape(headline(records))}</p>',
        _cautions(records),
        _scores(records, links),
        _curves(records),
        _tests(records),
        _differences(records),
    )
    return html_page.document(title, sections)


def _numbers(records: Sequence[RunRecord]) -> list[str]:
    """Returns '#1 ', … if the names cannot be drawn or look alike in figures, else ''."""
    names = [record.name for record in records]
    short = {figures.drawable_name(names, i) for i in range(len(names))}
    needed = len(short) < len(names) or not all(map(figures.drawable, names))
    return [f"#{i + 1} " if needed else "" for i in range(len(names))]


def _figures(records: Sequence[RunRecord]) -> Iterator[tuple[str, Figure]]:
    """Yields each figure's file name and figure."""
    names, numbers = [record.name for record in records], _numbers(records)
    labels = [
        f"{number if figures.drawable(name) else ''}{figures.drawable_name(names, i)} "
        f"({record.info.config['model.name']})"
        for i, (name, number, record) in enumerate(zip(names, numbers, records, strict=True))
    ]
    for file, (key, title) in CURVES.items():
        is_loss = key.endswith("loss")
        curves = [
            figures.RunCurves(
                label=label,
                color=color,
                epochs=column(record.history, "epoch").astype(int),
                solid=column(record.history, key),
                dashed=None if is_loss else column(record.history, key.replace("val", "train")),
                best=None if is_loss or len(record.history) == 1 else best_epoch(record.history),
            )
            for label, color, record in zip(labels, figures.RUNS, records, strict=False)
        ]
        yield f"{file}.png", figures.compared_curves(curves, title, losses=is_loss)


def _cautions(records: Sequence[RunRecord]) -> str:
    """Returns the warnings of all runs; one that several runs share is shown once."""
    found: dict[str, list[str]] = {}
    for record in records:
        lines = record.info.cautions()
        if record.unscored > 0:
            lines.append(
                f"epochs after {len(record.history)} have not been scored and are not shown; to "
                f"score the last one: {remedy(record.path)}"
            )
        for line in lines:
            found.setdefault(escape(line), []).append(escape(record.name))
    return html_page.caution([f"<b>{enumerate_names(v)}</b>: {k}" for k, v in found.items()])


def _scores(records: Sequence[RunRecord], links: Mapping[str, str]) -> str:
    header = [""]
    for record, color, number in zip(records, figures.RUNS, _numbers(records), strict=False):
        name = escape(record.name)
        if record.name in links:
            name = f'<a href="{links[record.name]}">{name}</a>'
        swatch = f'<span class="swatch" style="background: {color}"></span>'
        header.append(f"{swatch}{number}{name}")
    words = (
        "In brackets: 95 % intervals, Wilson’s for accuracy, the bootstrap’s for macro-F1. The "
        "validation scores of the best epoch are too high: it was chosen on these files. "
        "Calibration error: the difference between confidence and accuracy on the validation "
        "files, before and after temperature scaling, which was fitted on the same files."
    )
    return section("Scores", table(header, _rows(records), "k" + "v" * len(records)), note(words))


def _rows(records: Sequence[RunRecord]) -> Iterator[str | Sequence[str]]:
    """Yields the rows of the table of scores; a string is a heading for the rows below it."""
    infos = [record.info for record in records]
    seconds = [column(record.history, "seconds") for record in records]
    speeds = [np.median(column(record.history, "images_per_second")) for record in records]
    yield ["network", *(NETWORKS[info.config["model.name"]].display_name for info in infos)]
    yield ["initial weights", *(escape(info.weights.describe()) for info in infos)]
    yield ["parameters", *(f"{info.parameters:,}" for info in infos)]
    yield ["classes", *(str(len(info.data.classes)) for info in infos)]
    yield ["files", *(_files(info) for info in infos)]
    for split, chosen, title in (
        ("val", False, "Last epoch, validation files"),
        ("val", True, "Best epoch, chosen on these same validation files"),
        ("test", False, "Last epoch, test files"),
        ("test", True, "Best epoch, chosen on validation, test files"),
    ):
        scores = [record.scored(split, chosen) for record in records]
        if any(scores):
            yield title
            yield ["accuracy", *(_share(each, "accuracy") for each in scores)]
            yield ["macro-F1", *(_share(each, "macro_f1") for each in scores)]
    yield "Probabilities of the best epoch"
    calibrations = [_calibration(record) for record in records]
    yield ["temperature", *(f"{c.temperature:.2f}" if c else ABSENT for c in calibrations)]
    yield ["calibration error", *map(_errors, calibrations)]
    yield "Training"
    yield ["epochs", *map(_epochs, records)]
    yield ["best epoch", *map(_best, records)]
    yield ["time", *(duration(float(each.sum())) for each in seconds)]
    yield ["images/s (median)", *(f"{speed:,.0f}" for speed in speeds)]
    sessions = [info.session for info in infos]
    yield ["device", *(f"{s.device_count} × {escape(s.device_kind)}" for s in sessions)]


def _files(info: RunInfo) -> str:
    files = info.data.files.items()
    counts = ", ".join(f"{n:,} {SPLIT_WORDS[split]}" for split, n in files if n)
    return f"{noun(info.data.kind)}: {counts}"


def _share(scored: Predicted | None, name: str) -> str:
    if scored is None:
        return ABSENT
    return share(getattr(scored, name), getattr(scored, f"{name}_interval"))


def _calibration(record: RunRecord) -> Calibration | None:
    """Returns the calibration of a run if it is that of the best weights."""
    measured, best = record.calibration, record.scored("val", chosen=True)
    return measured if measured and best and measured.epoch == best.epoch else None


def _errors(measured: Calibration | None) -> str:
    if measured is None:
        return ABSENT
    before, after = (each.expected_calibration_error for each in (measured.before, measured.after))
    return f"{before:.1%} before, {after:.1%} after"


def _epochs(record: RunRecord) -> str:
    done, wanted = len(record.history), record.info.config["train.epochs"]
    return f"{done:,}" if done >= wanted else f"{done:,} of {wanted:,}"


def _best(record: RunRecord) -> str:
    best = best_epoch(record.history)
    return f"{best:,}, after {duration(float(column(record.history, 'seconds')[:best].sum()))}"


def _curves(records: Sequence[RunRecord]) -> str:
    images = []
    for file, (key, title) in CURVES.items():
        form, split = (".3g", "") if key.endswith("loss") else (".1%", ", validation")
        ends = ", ".join(f"{r.name} {column(r.history, key)[-1]:{form}}" for r in records)
        images.append(img(f"{file}.png", f"{title}. After the last epoch{split}: {ends}."))
    words = (
        "For accuracy and macro-F1, validation is solid and training dashed; a star marks the best "
        "epoch. Training is measured during the steps, with masks on."
    )
    return section("Training", side_by_side(*images), note(words))


def _tests(records: Sequence[RunRecord]) -> str:
    """Returns the paired tests, and which runs cannot be tested."""
    tests, names = paired_tests(records), [record.name for record in records]
    level, parts = significance_level(tests), []
    if tests:
        lines = [escape(_sentence(test, names, level)) for test in tests]
        words = html_page.listing(lines)
        if len(lines) > READ_PAIRS:
            words = f"<details><summary>In words, test by test</summary>{words}</details>"
        header = ("A", "B", "files", "both right", "only A", "only B", "neither", "p")
        rows = [
            (
                escape(names[pair.first]),
                escape(names[pair.second]),
                SPLIT_WORDS[pair.split],
                *(f"{n:,}" for n in pair.test[:4]),
                escape(p_text(pair.test.p).removeprefix("p").removeprefix(" = ")),
            )
            for pair in tests
        ]
        parts = [table(header, rows, "tttrrrrr"), words, note(_test_words(len(tests), level))]
    if sum(test.split == "val" for test in tests) < len(records) * (len(records) - 1) // 2:
        which = "Some of these runs" if tests else "These runs"
        parts.append(
            f"<p>{which} do not share a split: files, labels or splits differ. Only their "
            "intervals can be compared.</p>"
        )
    return section("More than chance?", *parts)


def _sentence(pair: Pair, names: Sequence[str], level: float) -> str:
    a, b, test = names[pair.first], names[pair.second], pair.test
    verdict = "more than chance" if test.p < level else NO_EVIDENCE
    where = "" if pair.split == "val" else "On the test files "
    return (
        f"{where}{a} got {count(test.only_first, 'file')} right that {b} got wrong, and {b} "
        f"{test.only_second} that {a} got wrong: {p_text(test.p)}, {verdict}."
    )


def _test_words(tests: int, level: float) -> str:
    words = (
        "McNemar’s exact two-sided test of the last epochs’ predictions counts the files that only "
        "one of the two runs got right. It compares these trained networks; with another seed, a "
        "small difference may reverse."
    )
    if tests > 1:
        words += (
            f" With {tests} tests, p must be below {level:.2g} (0.05 divided by {tests}) to count "
            "as more than chance."
        )
    return words


def _differences(records: Sequence[RunRecord]) -> str:
    """Returns the settings and versions in which the runs differ."""
    settings = []
    for info in (record.info for record in records):
        versions = {f"version of {name}": v for name, v in info.session.versions.items()}
        settings.append({key: repr(value) for key, value in info.config.items()} | versions)
    rows = []
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key) for each in settings]
        if any(value != values[0] for value in values):
            meaning = escape(KEYS[key].metadata["doc"]) if key in KEYS else ""
            cells = (ABSENT if value is None else code(value) for value in values)
            rows.append([f'<code title="{meaning}">{escape(key)}</code>', *cells])
    if not rows:
        return section("Settings that differ", "<p>None.</p>")
    header = ["key", *(escape(record.name) for record in records)]
    return section("Settings that differ", table(header, rows, "k" + "v" * len(records)))
