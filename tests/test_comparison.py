"""Several runs beside each other: from made-up runs' files to the page."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from samples import ODD, Page, make_results, scored

from meljax import record, report, runs
from meljax.data.files import Item
from meljax.data.load import VoiceSet
from meljax.errors import UserError
from meljax.pages import comparison, figures

ITEMS = 20
NAMES = ("ann", "bob", "cy", "di")


def leave_run(directory, wrong=3, first=0, epochs=4, test=0, parameters=None, names=NAMES, **facts):
    """Writes what a run leaves that is compared; its last epoch has `wrong` mistakes."""
    sides = {"val": ITEMS, "test": test}
    scores = [
        scored(side, epoch, chosen, len(names), sides[side], wrong - chosen, first=first)
        for side in sides
        if sides[side]
        for epoch, chosen in ((epochs, False), (max(1, epochs - 1), True))
    ]
    files = {"train": 90, "val": ITEMS, "test": test}
    results = make_results(names, epochs, scores=scores, files=files, **facts)
    if parameters:
        results.facts["parameters"] = parameters
    directory.mkdir(parents=True)
    runs.write_facts(directory, results.facts)
    for number, row in enumerate(results.history, 1):
        runs.append_history(directory, row | {"epoch": number})
    runs.write_predictions(directory, results, voices(names, sides))
    runs.write_calibration(directory, results)
    return results


def voices(names, sides):
    items = [
        Item(f"{side}{i}.wav", names[i % len(names)]) for side in sides for i in range(sides[side])
    ]
    arrays = tuple(np.zeros(1, np.int16) for _ in items)
    return VoiceSet(
        kind="sound",
        classes=tuple(names),
        items=tuple(items),
        sides=tuple(side for side in sides for _ in range(sides[side])),
        digests=("",) * len(items),
        arrays=arrays,
        floors=None,
        ignored=0,
        skipped=(),
        warnings=(),
    )


def compared(tmp_path, *names):
    """The page of the runs `names` in `tmp_path`, as read by a person."""
    paths = [tmp_path / name for name in names]
    text = report.compare(paths, tmp_path / "page").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def two(tmp_path):
    """Runs on one split: a has 2 mistakes of its own, b has 7."""
    leave_run(tmp_path / "a", wrong=2, epochs=3, parameters=1_234_567)
    leave_run(tmp_path / "b", wrong=7, first=5, epochs=8, settings={"model.name": "cnn"})
    return tmp_path


def test_predictions_come_back_as_they_went(tmp_path):
    results = leave_run(tmp_path / "a", names=ODD, test=16)
    (read,) = record.read([tmp_path / "a"])
    assert len(read.scores) == len(results.scores) == 4
    for back, scores in zip(read.scores, results.scores, strict=True):
        assert (back.side, back.epoch, back.chosen) == (scores.side, scores.epoch, scores.chosen)
        np.testing.assert_array_equal(back.probabilities, scores.probabilities)
        np.testing.assert_array_equal(back.labels, scores.labels)
        assert back.macro_f1 == scores.macro_f1
        assert back.accuracy_interval == scores.accuracy_interval
        assert back.macro_f1_interval == scores.macro_f1_interval
    assert read.scores[2].paths[:2] == ("test0.wav", "test1.wav")
    assert read.history == results.history
    assert read.calibration["temperature"] == 1


def test_the_headline_and_the_test_say_that_a_difference_may_be_chance(two):
    text, seen = compared(two, "a", "b")
    words = "a got 7 files right that b got wrong, b 2 that a got wrong: p = 0.18, no evidence of"
    assert words in seen.shown
    assert "a scored higher: 90.0% of the validation files right, against 65.0% for b" in seen.shown
    assert "There is no evidence of a difference (p = 0.18)." in seen.shown
    cells = [">11<", ">7<", ">2<", ">0<"]
    table = text[text.index("<h2>More than chance?") :]
    assert all(cell in table for cell in cells)
    assert "not share a split" not in seen.shown
    assert not seen.open


def test_a_difference_beyond_chance_is_called_one(tmp_path):
    leave_run(tmp_path / "good", wrong=1, first=19)
    leave_run(tmp_path / "bad", wrong=9)
    shown = compared(tmp_path, "bad", "good")[1].shown
    assert "The difference (p = 0.021) is more than chance would make." in shown
    assert "bad got 1 file right that good got wrong, good 9 that bad got wrong: p = 0.021" in shown


def test_with_several_pairs_more_is_asked_of_each(tmp_path):
    for name, wrong, first in (("a", 1, 19), ("b", 9, 0), ("c", 9, 0)):
        leave_run(tmp_path / name, wrong=wrong, first=first)
    shown = compared(tmp_path, "a", "b", "c")[1].shown
    assert "There is no evidence of a difference from b (p = 0.021) and c (p = 0.021)" in shown
    assert "p must be below 0.017" in shown


def test_runs_of_other_splits_are_compared_by_intervals_only(tmp_path):
    leave_run(tmp_path / "a", wrong=2)
    leave_run(tmp_path / "b", wrong=4, fingerprint="other")
    text, seen = compared(tmp_path, "a", "b")
    assert "They do not share a split: the 95 % intervals overlap" in seen.shown
    assert "intervals are all there is" in seen.shown
    assert "McNemar" not in text
    leave_run(tmp_path / "c", wrong=20, fingerprint="other")
    assert "lie apart, but other files may be easier" in compared(tmp_path, "a", "c")[1].shown
    shown = compared(tmp_path, "a", "b", "c")[1].shown
    assert "Some of these runs do not share a split" in shown
    assert "b got 0 files right" not in shown
    assert "b got 16 files right that c got wrong" in shown


def test_a_test_split_is_tested_too(tmp_path):
    leave_run(tmp_path / "a", wrong=1, test=40)
    leave_run(tmp_path / "b", wrong=6, test=40)
    shown = compared(tmp_path, "a", "b")[1].shown
    assert "On the test files a got 5 files right" in shown
    assert "Last epoch, test files" in shown
    assert "97.5%" in shown


def test_the_table_holds_what_the_runs_left(two):
    text, seen = compared(two, "a", "b")
    rows = {
        row[0]: row[1:]
        for row in (
            re.findall(r"<td[^>]*>(.*?)</td>", line)
            for line in text.split("<h2>Training</h2>")[0].splitlines()
        )
        if row
    }
    assert rows["network"] == ["ResNet-18", "CNN"]
    assert rows["parameters"] == ["1,234,567", "–"]
    assert rows["epochs"] == ["3 of 500", "8 of 500"]
    assert rows["best epoch"] == ["3, after 6 s", "8, after 16 s"]
    assert rows["time"] == ["6 s", "16 s"]
    assert rows["images/s (median)"] == ["75", "75"]
    assert rows["temperature"] == ["1.00", "1.00"]
    assert "model.name" in text.split("Settings that differ")[1]
    assert "train.seed" not in text.split("Settings that differ")[1]
    assert set(seen.images) == {f"figures/{name}.png" for name in comparison._CURVES}


def test_figures_lie_beside_the_page_and_nothing_else_is_loaded(two):
    text, seen = compared(two, "a", "b")
    for name in seen.images:
        with Image.open(two / "page" / name) as image:
            image.load()
    assert not seen.links
    assert not any(word in text for word in ("http:", "https:", "url(", "<script"))
    (two / "a" / "report.html").write_text("")
    assert compared(two, "a", "b")[1].links == ["../a/report.html"]


def test_curves_have_one_colour_per_run_and_share_an_axis():
    curves = [
        figures.RunCurves(
            f"${i}", figures.RUNS[i], np.arange(1, n + 1), np.ones(n) / 2, np.ones(n) / 3, 1
        )
        for i, n in enumerate((3, 500, 1))
    ]
    losses = figures.compared_losses(curves, "Training loss").axes[0]
    scores = figures.compared_scores(curves, "Accuracy").axes[0]
    for axes in (losses, scores):
        solid = [line for line in axes.lines if line.get_label() in ("$0", "$1", "$2")]
        assert [line.get_color() for line in solid] == list(figures.RUNS[:3])
        assert [len(line.get_xdata()) for line in solid] == [3, 500, 1]
        assert solid[1].get_marker() == "None"
        assert axes.get_xlim()[0] < 1 < 500 < axes.get_xlim()[1]
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["$0", "$1", "$2"]
    assert len(set(figures.RUNS)) == 8


@pytest.mark.parametrize("name", ["W" * 20, "resnet-lr1e-4"])
def test_legends_stay_inside_the_figure_and_beneath_its_title(name):
    curves = [
        figures.RunCurves(f"{name} (ResNet-18)", colour, np.arange(1, 3), np.ones(2))
        for colour in figures.RUNS
    ]
    figure = figures.compared_losses(curves, "Training loss")
    figure.canvas.draw()
    axes, whole = figure.axes[0], figure.bbox
    box = axes.get_legend().get_window_extent()
    title = axes._left_title.get_window_extent()
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert axes.bbox.y1 <= box.y0 < box.y1 <= title.y0 + 4
    assert title.y1 <= whole.y1


def test_names_that_clash_become_paths_that_do_not(tmp_path):
    for folder in ("x", "y"):
        leave_run(tmp_path / folder / "cnn")
    leave_run(tmp_path / "resnet")
    shown = compared(tmp_path, "x/cnn", "y/cnn", "resnet")[1].shown
    assert "x/cnn, y/cnn and resnet" in shown
    assert [r.name for r in record.read([tmp_path / "x" / "cnn"])] == ["cnn"]


def test_odd_names_are_text_and_become_numbers_in_figures(tmp_path):
    for name in ("<b>&\"'", "姓\udce9", "$x_$ #?%"):
        leave_run(tmp_path / name)
        (tmp_path / name / "report.html").write_text("")
    text, seen = compared(tmp_path, "<b>&\"'", "姓\udce9", "$x_$ #?%")
    assert not seen.open
    assert "<b>&\"', 姓? and $x_$ #?%" in seen.shown
    assert "#2 " in seen.shown
    assert "../%24x_%24%20%23%3F%25/report.html" in seen.links
    text.encode()


def test_unfinished_runs_and_epochs_that_were_not_scored_are_told(two):
    runs.append_history(two / "a", {"epoch": 4})
    shown = compared(two, "a", "b")[1].shown
    assert "epochs after 3 have not been scored" in shown
    assert f"python -m meljax.report {two / 'a'}" in shown


def test_a_run_without_predictions_names_the_remedy(two, capsys):
    (two / "b" / "predictions.csv").unlink()
    assert report.main([str(two / "a"), str(two / "b"), f"--out={two / 'page'}"]) == 2
    answer = capsys.readouterr().err
    assert "b holds no predictions.csv" in answer
    assert f"python -m meljax.report {two / 'b'}" in answer
    assert answer.count("\n") == 1
    assert not (two / "page").exists()


def rewrite(path, change):
    """Changes the table, row by row, of a CSV."""
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
    "another class": lambda rows: [*rows[:-1], [*rows[-1][:4], "eve", *rows[-1][5:]]],
    "other classes": lambda rows: [[*rows[0][:-1], "p:eve"], *rows[1:]],
    "another prediction": lambda rows: [*rows[:-1], [*rows[-1][:5], "ann", *rows[-1][6:]]],
    "another side": lambda rows: [rows[0], *([*r[:2], "train", *r[3:]] for r in rows[1:])],
    "other weights": lambda rows: [rows[0], *(["mean", *r[1:]] for r in rows[1:])],
    "no last epoch": lambda rows: [rows[0], *(r for r in rows[1:] if r[0] == "best")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_are_refused(damage, tmp_path):
    leave_run(tmp_path / "a")
    runs.read_predictions(tmp_path / "a", runs.recorded(tmp_path / "a"))
    rewrite(tmp_path / "a" / "predictions.csv", DAMAGES[damage])
    with pytest.raises(UserError, match=r"predictions.csv is damaged or not of this run; make it"):
        runs.read_predictions(tmp_path / "a", runs.recorded(tmp_path / "a"))


def test_predictions_of_other_files_are_not_taken_for_a_pair(two):
    def change(rows):
        return [rows[0], *([*r[:3], f"other/{r[3]}", *r[4:]] for r in rows[1:])]

    rewrite(two / "b" / "predictions.csv", change)
    with pytest.raises(UserError, match=r"share a split, but their predictions\.csv name other"):
        compared(two, "a", "b")


@pytest.mark.parametrize("text", ["garbage", "{}", '{"epoch": 3, "temperature": -1}'])
def test_a_damaged_calibration_is_refused(two, text):
    (two / "a" / "calibration.json").write_text(text)
    with pytest.raises(UserError, match=r"calibration.json is damaged; remove it"):
        compared(two, "a", "b")


def test_a_calibration_of_other_weights_is_not_shown(two):
    facts = json.loads((two / "a" / "calibration.json").read_text())
    (two / "a" / "calibration.json").write_text(json.dumps(facts | {"epoch": 99}))
    assert '<td class="key">temperature</td><td class="value">–</td>' in compared(two, "a", "b")[0]


@pytest.mark.parametrize("lost", ["versions", "device_kind"])
def test_a_record_that_lacks_something_is_refused(two, lost):
    facts = json.loads((two / "a" / "config.json").read_text())
    del facts[lost]
    (two / "a" / "config.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"config.json is damaged"):
        compared(two, "a", "b")


def test_what_is_no_run_or_no_place_is_refused_in_a_line(two, tmp_path, capsys):
    a, b, page = (str(two / name) for name in ("a", "b", "page"))
    (two / "mine").mkdir()
    (two / "mine" / "report.html").write_text("<title>mine</title>")
    (two / "file").write_text("")
    for arguments, message in (
        ([a, str(two), f"--out={page}"], "is no run: it holds no config.json"),
        ([a, b + "/../a", f"--out={page}"], "is given twice"),
        ([a] * 9, "9 runs are too many to tell apart; give 8 at most"),
        ([a, b, f"--out={b}"], "holds a config.json, as a run does"),
        ([a, b, f"--out={a}/page"], "lies in the run"),
        ([a, b, f"--out={two / 'file'}"], "is a file; give a directory"),
        ([a, b, f"--out={two / 'mine'}"], "is not one of meljax's"),
    ):
        assert report.main(arguments) == 2
        answer = capsys.readouterr().err
        assert message in answer
        assert answer.count("\n") == 1
    assert (two / "mine" / "report.html").read_text() == "<title>mine</title>"
    assert not (two / "a" / "page").exists()


def test_a_page_of_ours_is_replaced_and_leaves_nothing_behind(two):
    first, _ = compared(two, "a", "b")
    (two / "page" / "figures" / "mistake_01.wav").write_bytes(b"")
    (two / "page" / "figures" / "mine.png").write_bytes(b"")
    second, _ = compared(two, "b", "a")
    assert first != second
    left = {path.name for path in (two / "page" / "figures").iterdir()}
    assert left == {"mine.png", *(f"{name}.png" for name in comparison._CURVES)}


def test_the_page_lies_in_report_unless_told_otherwise(two, monkeypatch, capsys):
    monkeypatch.chdir(two)
    assert report.main(["a", "b"]) == 0
    assert (two / "report" / "report.html").is_file()
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("a scored higher")
    assert out[1] == "report: report/report.html"
