"""Pages of several runs, written from the files of made-up runs."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from conftest import edit_info
from PIL import Image
from samples import (
    HOSTILE,
    ODD,
    Page,
    assert_same_page,
    inlined,
    make_named,
    make_results,
    scored,
    table_under,
)

from meljax.commands import report as command
from meljax.config import KEYS
from meljax.data.dataset import Dataset
from meljax.data.manifest import Item
from meljax.evaluation.groups import Groups
from meljax.evaluation.statistics import sign_flips
from meljax.reports import comparison_page, figures, html_page
from meljax.reports.ranking import headline
from meljax.runs.history import append_history, read_history
from meljax.runs.info import read_info, require_info, write_info
from meljax.runs.predictions import (
    calibration_of,
    read_predictions,
    write_calibration,
    write_predictions,
)
from meljax.runs.record import read_records
from meljax.util.errors import UserError
from meljax.workflows import report

ITEMS = 20
NAMES = ("ann", "bob", "cy", "di")


def leave_run(
    directory,
    wrong=3,
    first=0,
    epochs=4,
    test=0,
    names=NAMES,
    temperature=1.0,
    groups=None,
    **info,
):
    """Writes the files of a run that are compared; its last epoch has `wrong` mistakes.

    `groups` are those of the items of each split.
    """
    splits = {"val": ITEMS, "test": test}
    scores = [
        scored(split, epoch, chosen, len(names), splits[split], wrong - chosen, first=first)
        for split in splits
        if splits[split]
        for epoch, chosen in ((epochs, False), (max(1, epochs - 1), True))
    ]
    scores = [
        dataclasses.replace(
            each,
            temperature=temperature,
            fitted_here=each.split == "val",
            groups=groups and Groups(groups[each.split], "speaker"),
        )
        for each in scores
    ]
    files = {"train": 90, "val": ITEMS, "test": test}
    results = make_results(names, epochs, scores=scores, files=files, **info)
    directory.mkdir(parents=True)
    write_info(directory, results.info)
    for number, row in enumerate(results.history, 1):
        append_history(directory, row | {"epoch": number})
    write_predictions(directory, results, dataset(names, splits))
    write_calibration(directory, results)
    return results


def dataset(names, splits):
    items = [
        Item(f"{split}{i}.wav", names[i % len(names)])
        for split in splits
        for i in range(splits[split])
    ]
    arrays = tuple(np.zeros(1, np.int16) for _ in items)
    return Dataset(
        kind="audio",
        classes=tuple(names),
        items=tuple(items),
        splits=tuple(split for split in splits for _ in range(splits[split])),
        digests=("",) * len(items),
        arrays=arrays,
        left_out={},
        skipped=(),
        warnings=(),
    )


def compared(tmp_path, *names):
    """Returns the page of the runs `names` in `tmp_path`: its HTML and what it shows."""
    paths = [tmp_path / name for name in names]
    text = report.compare(paths, tmp_path / "page").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def two(tmp_path):
    """Two runs on one split: only a makes 2 mistakes, only b makes 7."""
    leave_run(tmp_path / "a", wrong=2, epochs=3)
    leave_run(
        tmp_path / "b", wrong=7, first=5, epochs=8, settings={"model.name": "cnn"}, parameters=98
    )
    return tmp_path


def test_predictions_are_read_as_they_were_written(tmp_path):
    results = leave_run(tmp_path / "a", names=ODD, test=16)
    (read,) = read_records([tmp_path / "a"])
    assert len(read.scores) == len(results.scores) == 4
    for back, scores in zip(read.scores, results.scores, strict=True):
        assert (back.split, back.epoch, back.chosen) == (scores.split, scores.epoch, scores.chosen)
        np.testing.assert_array_equal(back.probabilities, scores.probabilities)
        np.testing.assert_array_equal(back.labels, scores.labels)
        assert back.macro_f1 == scores.macro_f1
        assert back.accuracy_interval == scores.accuracy_interval
        assert back.macro_f1_interval == scores.macro_f1_interval
    assert read.scores[2].paths[:2] == (("test0.wav", "", ""), ("test1.wav", "", ""))
    assert read.history == results.history
    assert read.calibration.temperature == 1


def test_an_insignificant_difference_is_called_no_evidence(two):
    text, seen = compared(two, "a", "b")
    words = "a got 7 files right that b got wrong, and b 2 that a got wrong: p = 0.18"
    assert f"{words}, no evidence of" in seen.shown
    assert "a scored higher: 90.0% of the validation files right, against 65.0% for b" in seen.shown
    assert "There is no evidence of a difference (p = 0.18)." in seen.shown
    cells = [">11<", ">7<", ">2<", ">0<"]
    table = text[text.index("<h2>More than chance?") :]
    assert all(cell in table for cell in cells)
    assert "not share a split" not in seen.shown
    assert not seen.open


def test_a_significant_difference_is_called_more_than_chance(tmp_path):
    leave_run(tmp_path / "good", wrong=1, first=19)
    leave_run(tmp_path / "bad", wrong=9)
    shown = compared(tmp_path, "bad", "good")[1].shown
    assert "The difference (p = 0.021) is more than chance." in shown
    words = "bad got 1 file right that good got wrong, and good 9 that bad got wrong: p = 0.021"
    assert words in shown


def test_the_significance_level_is_divided_by_the_number_of_pairs(tmp_path):
    for name, wrong, first in (("a", 1, 19), ("b", 9, 0), ("c", 9, 0)):
        leave_run(tmp_path / name, wrong=wrong, first=first)
    shown = compared(tmp_path, "a", "b", "c")[1].shown
    assert "There is no evidence of a difference from b (p = 0.021) and c (p = 0.021)" in shown
    assert "p must be below 0.017 (0.05 divided by 3)" in shown


@pytest.mark.parametrize(("runs", "folded"), [(4, False), (5, True)])
def test_the_sentences_of_more_than_six_tests_are_folded(tmp_path, runs, folded):
    names = "abcde"[:runs]
    for name in names:
        leave_run(tmp_path / name)
    text, seen = compared(tmp_path, *names)
    assert ("<summary>In words, test by test</summary>" in text) == folded
    tests = len(table_under("More than chance?", text)) - 1
    assert seen.shown.count("p = 1, no evidence of a difference.") == tests == runs * (runs - 1) / 2


def test_runs_with_different_splits_are_compared_by_intervals_only(tmp_path):
    leave_run(tmp_path / "a", wrong=2)
    leave_run(tmp_path / "b", wrong=4, fingerprint="other")
    text, seen = compared(tmp_path, "a", "b")
    assert "They do not share a split: the 95 % intervals overlap" in seen.shown
    assert "Only their intervals can be compared" in seen.shown
    assert "McNemar" not in text
    leave_run(tmp_path / "c", wrong=20, fingerprint="other")
    assert "do not overlap, but other files may be easier" in compared(tmp_path, "a", "c")[1].shown
    shown = compared(tmp_path, "a", "b", "c")[1].shown
    assert "Some of these runs do not share a split" in shown
    assert "b got 0 files right" not in shown
    assert "b got 16 files right that c got wrong" in shown


def by_speaker(speakers, test=0):
    return {
        split: tuple(f"s{i * speakers // items}" for i in range(items))
        for split, items in (("val", ITEMS), ("test", test))
    }


def test_runs_with_groups_are_compared_by_a_permutation_of_groups(tmp_path):
    """10 speakers of two files: b's nine mistakes are those of 5 speakers, a's one of another."""
    keys = {"groups": by_speaker(10), "settings": {"data.group": "speaker"}}
    leave_run(tmp_path / "a", wrong=1, first=19, **keys)
    leave_run(tmp_path / "b", wrong=9, **keys)
    p = sign_flips(np.array([2, 2, 2, 2, 1, 0, 0, 0, 0, -1]))
    assert p == 3 / 32
    text, seen = compared(tmp_path, "a", "b")
    rows = table_under("More than chance?", text)
    assert rows[1][-2:] == ["0.094", "permutation of 10 speakers"]
    assert "There is no evidence of a difference (p = 0.094). Test: permutation of 10" in seen.shown
    assert "a permutation test exchanges the answers of the two runs in whole groups" in seen.shown
    low, high = read_records([tmp_path / "b"])[0].scores[0].accuracy_interval.bounds
    assert f"55.0% ({low:.1%} to {high:.1%} over 10 speakers)" in seen.shown
    assert "whole groups" not in compared_without_groups(tmp_path).shown


def compared_without_groups(tmp_path):
    leave_run(tmp_path / "c")
    leave_run(tmp_path / "d")
    return compared(tmp_path, "c", "d")[1]


def test_with_few_groups_runs_are_neither_tested_nor_given_intervals(tmp_path):
    keys = {"groups": by_speaker(2, test=16), "test": 16, "settings": {"data.group": "speaker"}}
    leave_run(tmp_path / "a", wrong=1, first=19, **keys)
    leave_run(tmp_path / "b", wrong=9, **keys)
    text, seen = compared(tmp_path, "a", "b")
    few = "2 speakers: too few for a p-value"
    assert [row[-2:] for row in table_under("More than chance?", text)[1:]] == [["–", few]] * 2
    assert f"The difference was not tested: {few}." in seen.shown
    assert f"a got 9 files right that b got wrong, and b 1 that a got wrong: {few}." in seen.shown
    assert "p must be below" not in seen.shown
    assert "55.0% (2 speakers: too few for an interval)" in seen.shown
    leave_run(tmp_path / "c", wrong=9, fingerprint="other")
    line = headline(read_records([tmp_path / "a", tmp_path / "c"]))
    assert line.endswith("intervals cannot be compared: a (2 speakers: too few for an interval).")


def test_groups_are_read_as_they_were_written(tmp_path):
    leave_run(tmp_path / "a", groups=by_speaker(3), settings={"data.group": "speaker"})
    (scores, _) = read_predictions(tmp_path / "a", read_info(tmp_path / "a"))
    assert scores.groups == Groups(by_speaker(3)["val"], "speaker")
    rewrite(tmp_path / "a" / "predictions.csv", lambda rows: [[*r[:6], *r[7:]] for r in rows])
    with pytest.raises(UserError, match="is damaged"):
        read_predictions(tmp_path / "a", read_info(tmp_path / "a"))


def test_predictions_of_other_groups_are_not_paired(tmp_path):
    leave_run(tmp_path / "a", groups=by_speaker(10))
    leave_run(tmp_path / "b", groups=by_speaker(9))
    with pytest.raises(UserError, match="name different files or groups"):
        compared(tmp_path, "a", "b")


def test_a_run_that_is_not_calibrated_says_why(tmp_path):
    leave_run(tmp_path / "a", temperature=0.5)
    leave_run(tmp_path / "b")
    note = "48 validation items, at least 50 needed"
    file = tmp_path / "b" / "calibration.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": note}))
    text, seen = compared(tmp_path, "a", "b")
    rows = {row[0]: row[1:] for row in table_under("Scores", text)}
    assert rows["temperature"] == ["0.50", f"1, not calibrated: {note}"]
    assert "before" in rows["calibration error"][0]
    assert "before" not in rows["calibration error"][1]
    assert "(cross-fitting) unless the table says otherwise" in seen.shown


def test_test_splits_are_tested_too(tmp_path):
    leave_run(tmp_path / "a", wrong=1, test=40)
    leave_run(tmp_path / "b", wrong=6, test=40)
    shown = compared(tmp_path, "a", "b")[1].shown
    assert "On the test files a got 5 files right" in shown
    assert "Last epoch, test files" in shown
    assert "97.5%" in shown


def test_the_significance_level_is_divided_by_validation_and_test_pairs(tmp_path):
    """p = 0.039 on the validation files is significant as one test, not as one of two."""
    for name, wrong, first in (("a", 1, 19), ("b", 8, 0)):
        leave_run(tmp_path / name, wrong=wrong, first=first)
        leave_run(tmp_path / "tested" / name, wrong=wrong, first=first, test=ITEMS)
    shown = compared(tmp_path, "a", "b")[1].shown
    assert "The difference (p = 0.039) is more than chance." in shown
    shown = compared(tmp_path, "tested/a", "tested/b")[1].shown
    assert "There is no evidence of a difference (p = 0.039)." in shown
    assert "With 2 tests, p must be below 0.025 (0.05 divided by 2)" in shown
    assert shown.count("p = 0.039, no evidence of a difference") == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((3, 3), "a and b both got 85.0% of the validation files right (weights"),
        ((3, 3, 3), "a, b and c all got 85.0% of the validation files right (weights"),
        (
            (7, 3, 3, 9),
            "b and c tied for the highest score: each got 85.0% of the validation files right",
        ),
        ((3, 7, 7), "a scored highest: 85.0% of the validation files right (weights"),
    ],
)
def test_tied_runs_are_called_tied(tmp_path, wrong, words):
    names = "abcd"[: len(wrong)]
    for name, each in zip(names, wrong, strict=True):
        leave_run(tmp_path / name, wrong=each)
    line = headline(read_records([tmp_path / name for name in names]))
    assert line.startswith(words)
    assert ("scored highest" in line) == (wrong.count(min(wrong)) == 1)
    # Only runs with lower scores are compared with the leaders.
    behind = [name for name, each in zip(names, wrong, strict=True) if each > min(wrong)]
    assert all(f"{name} (p" in line for name in behind)
    assert line.count("(p") == len(behind)


def test_what_scored_less_is_judged_by_the_leader_it_differs_from_least(tmp_path):
    """From a by p = 0.065, from b by p = 0.016; the level for three tests is 0.017."""
    for name, wrong, first in (("a", 2, 0), ("b", 2, 10), ("c", 9, 10)):
        leave_run(tmp_path / name, wrong=wrong, first=first)
    line = headline(read_records([tmp_path / name for name in "abc"]))
    assert line.endswith(
        "There is no evidence of a difference from c (p = 0.065). Test: McNemar’s test."
    )


def test_validation_files_alone_decide_the_headline(tmp_path):
    """On the test files both get 20 of 40 wrong."""
    leave_run(tmp_path / "a", wrong=20, first=20, test=40)
    leave_run(tmp_path / "b", wrong=20, first=10, test=40)
    line = headline(read_records([tmp_path / "a", tmp_path / "b"]))
    assert line.endswith("(p = 0.002) is more than chance. Test: McNemar’s test.")


def test_tied_runs_with_different_splits_are_compared_by_intervals(tmp_path):
    leave_run(tmp_path / "a", wrong=3)
    leave_run(tmp_path / "b", wrong=3, fingerprint="other")
    line = headline(read_records([tmp_path / "a", tmp_path / "b"]))
    assert "They do not share a split: the 95 % intervals overlap" in line


def test_runs_with_different_classes_are_not_ranked(tmp_path):
    others = ("eve", "fay")
    leave_run(tmp_path / "a", wrong=9)
    leave_run(tmp_path / "b", wrong=1, names=others, fingerprint="other")
    line = headline(read_records([tmp_path / "a", tmp_path / "b"]))
    do_not = "Do not compare scores of different tasks."
    assert line == f"These runs have different classes: a; b. {do_not}"
    leave_run(tmp_path / "c", wrong=2)
    line = headline(read_records([tmp_path / name for name in "abc"]))
    assert line == (
        f"These runs have different classes: a and c; b. {do_not} Of a and c, c scored higher: "
        "90.0% of the validation files right, against 55.0% for a (weights of the last epoch). The "
        "difference (p = 0.016) is more than chance. Test: McNemar’s test."
    )


def test_the_table_has_the_scores_of_all_runs(two):
    text, seen = compared(two, "a", "b")
    rows = {row[0]: row[1:] for row in table_under("Scores", text)}
    assert rows["network"] == ["ResNet-18", "small convolutional network"]
    assert rows["parameters"] == ["1,234,567", "98"]
    assert rows["epochs"] == ["3 of 500", "8 of 500"]
    assert rows["best epoch"] == ["3, after 6 s", "8, after 16 s"]
    assert rows["time"] == ["6 s", "16 s"]
    assert rows["images/s (median)"] == ["75", "75"]
    assert rows["temperature"] == ["1.00", "1.00"]
    assert "model.name" in text.split("Settings that differ")[1]
    assert "train.seed" not in text.split("Settings that differ")[1]
    assert len(seen.images) == len(comparison_page.CURVES)


def test_every_cell_is_in_the_right_row_and_column(tmp_path):
    left = [
        leave_run(tmp_path / name, wrong=wrong, first=first, test=40, temperature=temperature)
        for name, wrong, first, temperature in (("a", 2, 0, 0.5), ("b", 7, 5, 2.0))
    ]
    text, _ = compared(tmp_path, "a", "b")
    rows = table_under("Scores", text)
    assert rows[0] == ["", "a", "b"]
    heads = [row[0] for row in rows if len(row) == 1]
    assert heads[:4] == [
        "Last epoch, validation files",
        "Best epoch, chosen on these same validation files",
        "Last epoch, test files",
        "Best epoch (chosen on the validation files), test files",
    ]
    order = [("val", False), ("val", True), ("test", False), ("test", True)]
    for head, (split, chosen) in zip(heads, order, strict=False):
        place = rows.index([head])
        for run, results in enumerate(left, 1):
            (of,) = (s for s in results.scores if (s.split, s.chosen) == (split, chosen))
            assert rows[place + 1][run].startswith(f"{of.accuracy:.1%} (")
            assert rows[place + 2][run].startswith(f"{of.macro_f1:.1%} (")
    assert ["temperature", "0.50", "2.00"] in rows
    measured = [calibration_of(results.scores[1]) for results in left]
    errors = [
        [f"{scores.expected_calibration_error:.1%}" for scores in (each.before, each.after)]
        for each in measured
    ]
    assert all(before != after for before, after in errors)
    errors = [f"{before} before, {after} after" for before, after in errors]
    assert ["calibration error", *errors] in rows
    header, val, test = table_under("More than chance?", text)
    assert header == ["A", "B", "files", "both right", "only A", "only B", "neither", "p", "test"]
    assert val == ["a", "b", "validation", "11", "7", "2", "0", "0.18", "McNemar’s test"]
    assert test[:3] == ["a", "b", "test"]
    assert [int(cell) for cell in test[3:7]] == [31, 7, 2, 0]


def test_times_and_speeds_are_those_of_uneven_epochs(tmp_path):
    """All epochs of both runs have the same accuracy; the loss is lowest at the third."""
    for name, last in (("a", 90), ("b", 600)):
        leave_run(tmp_path / name, epochs=4, settings={"train.epochs": 4})
        history = read_history(tmp_path / name, require_info(tmp_path / name))
        (tmp_path / name / "metrics.jsonl").unlink()
        pace = zip(history, (9, 2, 3, 4), (10, 70, 80, last), (3.0, 2.0, 1.0, 2.0), strict=True)
        for row, seconds, speed, loss in pace:
            measured = {"seconds": seconds, "images_per_second": speed, "val_loss": loss}
            append_history(tmp_path / name, row | measured | {"val_accuracy": 0.5})
    text, _ = compared(tmp_path, "a", "b")
    rows = {row[0]: row[1:] for row in table_under("Scores", text)}
    assert rows["epochs"] == ["4", "4"]
    assert rows["time"] == ["18 s", "18 s"]
    assert rows["best epoch"] == ["3, after 14 s", "3, after 14 s"]
    assert rows["images/s (median)"] == ["75", "75"]


def test_a_differing_setting_shows_its_meaning_as_title(two):
    text, seen = compared(two, "a", "b")
    assert seen.titles == [KEYS["model.name"].metadata["doc"]]
    header, row = table_under("Settings that differ", text)
    assert header == ["key", "a", "b"]
    assert row == ["model.name", "'resnet18'", "'cnn'"]


def test_validation_is_solid_and_training_dashed_in_compared_curves(two, monkeypatch):
    drawn = {}

    draw = figures.compared_curves

    def record(curves, title, losses):
        drawn[title] = curves
        return draw(curves, title, losses)

    monkeypatch.setattr(figures, "compared_curves", record)
    compared(two, "a", "b")
    columns = {
        "Training loss": ("train_loss", None),
        "Validation loss": ("val_loss", None),
        "Accuracy": ("val_accuracy", "train_accuracy"),
        "Macro-F1": ("val_f1", "train_f1"),
    }
    assert drawn.keys() == columns.keys()
    for title, (solid, dashed) in columns.items():
        for curve, name, color in zip(drawn[title], ("a", "b"), figures.RUNS, strict=False):
            history = read_history(two / name, require_info(two / name))
            assert curve.label.startswith(f"{name} (")
            assert curve.color == color
            np.testing.assert_array_equal(curve.solid, [row[solid] for row in history])
            assert (curve.dashed is None) == (dashed is None)
            if dashed:
                np.testing.assert_array_equal(curve.dashed, [row[dashed] for row in history])
            assert curve.best == (len(history) if dashed else None)


def test_the_page_loads_only_its_own_figures(two):
    text, seen = compared(two, "a", "b")
    for url in seen.images:
        with Image.open(io.BytesIO(inlined(url))) as image:
            image.load()
    assert not seen.links
    assert not any(word in text for word in ("http:", "https:", "url(", "<script"))
    (two / "a" / "report.html").write_text("")
    assert compared(two, "a", "b")[1].links == ["../a/report.html"]


def test_compared_curves_have_a_color_per_run_and_one_axis():
    curves = [
        figures.RunCurves(
            f"${i}", figures.RUNS[i], np.arange(1, n + 1), np.ones(n) / 2, np.ones(n) / 3, 1
        )
        for i, n in enumerate((3, 500, 1))
    ]
    losses = figures.compared_curves(curves, "Training loss", losses=True).axes[0]
    scores = figures.compared_curves(curves, "Accuracy", losses=False).axes[0]
    for axes in (losses, scores):
        solid = [line for line in axes.lines if line.get_label() in ("$0", "$1", "$2")]
        assert [line.get_color() for line in solid] == list(figures.RUNS[:3])
        assert [len(line.get_xdata()) for line in solid] == [3, 500, 1]
        assert solid[1].get_marker() == "None"
        assert axes.get_xlim()[0] < 1 < 500 < axes.get_xlim()[1]
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["$0", "$1", "$2"]
    assert len(set(figures.RUNS)) == 8


@pytest.mark.parametrize("name", ["W" * 20, "resnet-lr1e-4"])
def test_legends_stay_inside_the_figure_and_below_its_title(name):
    curves = [
        figures.RunCurves(f"{name} (ResNet-18)", color, np.arange(1, 3), np.ones(2))
        for color in figures.RUNS
    ]
    figure = figures.compared_curves(curves, "Training loss", losses=True)
    figure.canvas.draw()
    axes, whole = figure.axes[0], figure.bbox
    box = axes.get_legend().get_window_extent()
    title = axes._left_title.get_window_extent()
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert axes.bbox.y1 <= box.y0 < box.y1 <= title.y0 + 4
    assert title.y1 <= whole.y1


def test_runs_with_equal_names_are_named_by_longer_paths(tmp_path):
    for folder in ("x", "y"):
        leave_run(tmp_path / folder / "cnn")
    leave_run(tmp_path / "resnet")
    shown = compared(tmp_path, "x/cnn", "y/cnn", "resnet")[1].shown
    assert "x/cnn, y/cnn and resnet" in shown
    assert [r.name for r in read_records([tmp_path / "x" / "cnn"])] == ["cnn"]


def test_unusual_names_are_escaped_and_numbered_in_figures(tmp_path):
    for name in ("<b>&\"'", "姓\udce9", "$x_$ #?%"):
        leave_run(tmp_path / name)
        (tmp_path / name / "report.html").write_text("")
    text, seen = compared(tmp_path, "<b>&\"'", "姓\udce9", "$x_$ #?%")
    assert "../%3Cb%3E%26%22%27/report.html" in seen.links
    assert not seen.open
    assert "<b>&\"', 姓? and $x_$ #?%" in seen.shown
    assert "#2 " in seen.shown
    assert "../%24x_%24%20%23%3F%25/report.html" in seen.links
    text.encode()


def test_names_never_become_markup(two):
    """The runs share a split; a setting and a version differ."""
    pages = []
    for word in ("plainword", HOSTILE):
        records = []
        for record in read_records([two / "a", two / "b"]):
            info, name = make_named(word).info, f"{word} {record.name}"
            session = dataclasses.replace(info.session, versions={word: name})
            config = info.config | {"data.path": name}
            info = dataclasses.replace(info, config=config, sessions=(session,))
            records.append(dataclasses.replace(record, name=name, info=info, unscored=1))
        pages.append(comparison_page.write_comparison(two / "page", records).read_text())
    assert_same_page(*pages)
    assert len(table_under("More than chance?", pages[1])) == 2
    assert len(table_under("Settings that differ", pages[1])) == 3


def test_unscored_epochs_are_reported(two):
    row = read_history(two / "a", require_info(two / "a"))[-1]
    append_history(two / "a", row | {"epoch": 4})
    shown = compared(two, "a", "b")[1].shown
    assert "epochs after 3 have not been scored" in shown
    assert f"meljax report {two / 'a'}" in shown


def test_missing_predictions_are_reported_with_the_command_that_writes_them(two, capsys):
    (two / "b" / "predictions.csv").unlink()
    assert command.main([str(two / "a"), str(two / "b"), f"--out={two / 'page'}"]) == 2
    answer = capsys.readouterr().err
    assert "b has no predictions.csv" in answer
    assert f"meljax report {two / 'b'}" in answer
    assert answer.count("\n") == 1
    assert not (two / "page").exists()


def rewrite(path, change):
    """Replaces the rows of a CSV by `change(rows)`."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(change(rows))


DAMAGES = {
    "empty": lambda rows: [],
    "header alone": lambda rows: rows[:1],
    "a row less": lambda rows: rows[:-1],
    "a cell less": lambda rows: [*rows[:-1], rows[-1][:-1]],
    "no number": lambda rows: [*rows[:-1], [*rows[-1][:-1], "x"]],
    "nan": lambda rows: [*rows[:-1], [*rows[-1][:-1], "nan"]],
    "another class": lambda rows: [*rows[:-1], [*rows[-1][:7], "eve", *rows[-1][8:]]],
    "other classes": lambda rows: [[*rows[0][:-1], "p:eve"], *rows[1:]],
    "another prediction": lambda rows: [*rows[:-1], [*rows[-1][:8], "ann", *rows[-1][9:]]],
    "another split": lambda rows: [rows[0], *([*r[:2], "train", *r[3:]] for r in rows[1:])],
    "other weights": lambda rows: [rows[0], *(["mean", *r[1:]] for r in rows[1:])],
    "no last epoch": lambda rows: [rows[0], *(r for r in rows[1:] if r[0] == "best")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_are_refused(damage, tmp_path):
    leave_run(tmp_path / "a")
    read_predictions(tmp_path / "a", read_info(tmp_path / "a"))
    rewrite(tmp_path / "a" / "predictions.csv", DAMAGES[damage])
    with pytest.raises(
        UserError, match=r"predictions.csv is damaged or belongs to another run; to write it"
    ):
        read_predictions(tmp_path / "a", read_info(tmp_path / "a"))


def test_predictions_of_other_files_are_not_paired(two):
    def change(rows):
        return [rows[0], *([*r[:3], f"other/{r[3]}", *r[4:]] for r in rows[1:])]

    rewrite(two / "b" / "predictions.csv", change)
    with pytest.raises(
        UserError, match=r"share a split, but their predictions\.csv name different"
    ):
        compared(two, "a", "b")


@pytest.mark.parametrize("text", ["garbage", "{}", '{"epoch": 3, "temperature": -1}'])
def test_a_damaged_calibration_is_refused(two, text):
    (two / "a" / "calibration.json").write_text(text)
    with pytest.raises(UserError, match=r"calibration.json is damaged; to write"):
        compared(two, "a", "b")


def test_a_missing_calibration_is_refused_if_one_was_written(two):
    (two / "a" / "calibration.json").unlink()
    compared(two, "a", "b")  # the weights of the best epoch are lost, so none was written
    edit_info(two / "a", lambda info: info["digests"].update({"calibration.json": "0" * 64}))
    with pytest.raises(UserError, match=r"calibration.json is damaged or was edited; to write"):
        compared(two, "a", "b")


def test_a_calibration_of_other_weights_is_not_shown(two):
    info = json.loads((two / "a" / "calibration.json").read_text())
    (two / "a" / "calibration.json").write_text(json.dumps(info | {"epoch": 99}))
    assert '<td class="key">temperature</td><td class="value">–</td>' in compared(two, "a", "b")[0]


@pytest.mark.parametrize("lost", ["sessions", "parameters"])
def test_an_incomplete_record_is_refused(two, lost):
    edit_info(two / "a", lambda info: info.pop(lost))
    with pytest.raises(UserError, match=r"config.json is damaged"):
        compared(two, "a", "b")


def test_directories_without_runs_are_refused_in_one_line(two, tmp_path, capsys):
    a, b, page = (str(two / name) for name in ("a", "b", "page"))
    (two / "mine").mkdir()
    (two / "mine" / "report.html").write_text("<title>mine</title>")
    (two / "file").write_text("")
    for arguments, message in (
        ([a, str(two), f"--out={page}"], "is not a run: it has no config.json"),
        ([a, b + "/../a", f"--out={page}"], "is given twice"),
        ([a] * 9, "9 runs are too many for one page; give at most 8"),
        ([a, b, f"--out={b}"], "has a config.json, like a run"),
        ([a, b, f"--out={a}/page"], "is inside the run"),
        ([a, b, f"--out={two / 'file'}"], "is a file; give a directory"),
        ([a, b, f"--out={two / 'mine'}"], "was not written by meljax"),
    ):
        assert command.main(arguments) == 2
        answer = capsys.readouterr().err
        assert message in answer
        assert answer.count("\n") == 1
    assert (two / "mine" / "report.html").read_text() == "<title>mine</title>"
    assert not (two / "a" / "page").exists()


def test_an_earlier_page_is_replaced_completely(two):
    first, _ = compared(two, "a", "b")
    (two / "page" / "figures").mkdir()
    for name in ("mistake_01.wav", "accuracy.png", "mine.png"):
        (two / "page" / "figures" / name).write_bytes(b"")
    second, _ = compared(two, "b", "a")
    assert first != second
    left = {path.name for path in (two / "page" / "figures").iterdir()}
    assert left == {"mine.png"}


def test_large_figures_are_kept_beside_the_page(two, monkeypatch):
    monkeypatch.setattr(html_page, "INLINED_BYTES", 0)
    _, seen = compared(two, "a", "b")
    assert "in the folder figures beside it" in seen.shown
    assert seen.images == [f"figures/{name}.png" for name in comparison_page.CURVES]
    assert all((two / "page" / name).is_file() for name in seen.images)


def test_the_default_folder_is_report(two, monkeypatch, capsys):
    monkeypatch.chdir(two)
    assert command.main(["a", "b"]) == 0
    assert (two / "report" / "report.html").is_file()
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("a scored higher")
    assert out[1] == "report: report/report.html"


def test_scored_runs_have_no_warnings_and_figures_are_described(two):
    _, seen = compared(two, "a", "b")
    assert "Warnings" not in seen.shown
    assert any(
        alt.startswith("Accuracy. After the last epoch, validation: a ") for alt in seen.alts
    )
    assert any(alt.startswith("Training loss. After the last epoch: a ") for alt in seen.alts)


def test_names_that_look_alike_in_figures_are_numbered(tmp_path):
    names = [f"a_long_name_{middle}_of_a_run" for middle in ("first", "second")]
    for name in names:
        leave_run(tmp_path / name)
    shown = compared(tmp_path, *names)[1].shown
    assert f"#1 {names[0]}" in shown
    assert f"#2 {names[1]}" in shown
