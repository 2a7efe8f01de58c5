"""Thresholds: chosen for a precision, read from files, and applied by predict."""

import shutil

import numpy as np
import pytest
from samples import scored, trained_model

import meljax
from meljax.commands import evaluate, predict
from meljax.evaluation.scores import Predicted
from meljax.evaluation.thresholds import enough_items, precision_thresholds
from meljax.runs.thresholds import find_thresholds, read_thresholds
from meljax.util.csv_file import read_csv
from meljax.util.errors import UserError

CLASSES = ("ann", "bob", "cy")


def predictions(*items: tuple[float, bool]) -> Predicted:
    """Scores of two classes where all items are predicted as the first: (probability, right)."""
    first = np.array([probability for probability, _ in items])
    labels = np.array([0 if right else 1 for _, right in items])
    both = np.stack([first, 1 - first], 1)
    return Predicted("val", 1, True, labels, paths=(), probabilities=both)


def test_the_lowest_threshold_with_the_precision_is_chosen():
    scores = predictions((0.9, True), (0.8, False), (0.7, True), (0.6, True), (0.55, False))
    first, other = precision_thresholds(scores, 0.75)
    assert (first.value, first.items, first.kept, first.right) == (0.6, 5, 4, 3)
    assert (other.value, other.items, other.kept) == (1.0, 0, 0)
    assert precision_thresholds(scores, 1.0)[0].value == 0.9
    assert precision_thresholds(scores, 0.6)[0].value == 0.55


def test_equal_probabilities_are_kept_together():
    scores = predictions((0.9, True), (0.8, True), (0.8, False), (0.8, False))
    assert precision_thresholds(scores, 0.9)[0].value == 0.9


def test_a_class_that_never_is_precise_enough_gets_1():
    scores = predictions((0.9, False), (0.8, True))
    assert precision_thresholds(scores, 0.9)[0][:3] == (1.0, 2, 0)


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95, 1.0])
def test_the_kept_items_have_the_precision(precision):
    scores = scored("val", 3, True, 4, 200, 50)
    for number, each in enumerate(precision_thresholds(scores, precision)):
        predicted = scores.predictions == number
        kept = predicted & (scores.probabilities[:, number] >= each.value)
        assert each.items == predicted.sum()
        if each.kept:
            assert each.kept == kept.sum()
            assert scores.right[kept].mean() >= precision
            lower = predicted & (scores.probabilities[:, number] < each.value)
            for value in scores.probabilities[lower, number]:
                more = predicted & (scores.probabilities[:, number] >= value)
                assert scores.right[more].mean() < precision


def test_more_precision_needs_more_items():
    assert [enough_items(p) for p in (0.5, 0.9, 0.95, 0.99, 1.0)] == [10, 10, 20, 100, 100]


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "t.csv").write_text(text, encoding=encoding)
    return tmp_path / "t.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "class,threshold\nann,0.5\ncy,1\n",
        "note,class,threshold\r\nx,ann,0.5\r\n,cy,1\r\n",
        "class;threshold\nann;0,5\ncy;1\n",
        "class;threshold\nann;0.5\n\ncy;1\n",
    ],
)
def test_thresholds_are_read_as_spreadsheets_write_them(text, encoding, tmp_path):
    assert read_thresholds(table(tmp_path, text, encoding), CLASSES) == {"ann": 0.5, "cy": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,threshold\nanna,0.5\n", "line 2: the model has no class 'anna'.*nearest is 'ann'"),
        ("class,threshold\nann,0.5\nann,0.5\n", "line 3: class 'ann' has two thresholds"),
        ("class,threshold\nann,1.5\n", "line 2: the threshold of 'ann' must be 0 to 1, not '1.5'"),
        ("class,threshold\nann,nan\n", "must be 0 to 1, not 'nan'"),
        ("class,threshold\nann,\n", "must be 0 to 1, not ''"),
        ("class,threshold\nann\n", "must be 0 to 1, not ''"),
        ("class,value\nann,1\n", "no column 'threshold'"),
        ("class,threshold\nann,0,9\n", "line 2: more fields than the header has"),
        (f"class,threshold\nann,{'0' * 200_000}\n", "field larger than field limit"),
        ("", "no column 'class'"),
    ],
)
def test_wrong_thresholds_are_one_line(text, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        read_thresholds(table(tmp_path, text), CLASSES)
    assert "\n" not in str(error.value)


def test_files_that_are_no_tables_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_thresholds(tmp_path / "none.csv", CLASSES)
    (tmp_path / "x.csv").write_bytes(b"class,threshold\n\xe9,1\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_thresholds(tmp_path / "x.csv", CLASSES)


def test_the_minimum_is_for_all_classes(tmp_path):
    model = trained_model(CLASSES)
    found = find_thresholds(tmp_path, model, {"ann": 0.2, "cy": 0.9}, 0.5)
    assert found.tolist() == [0.5, 0.5, 0.9]
    assert find_thresholds(tmp_path, model, None, 0.0).tolist() == [0, 0, 0]
    for given, minimum, message in (
        ({"ann": 2.0}, 0.0, "must be 0 to 1, not '2.0'"),
        ({"dan": 0.5}, 0.0, "no class 'dan'"),
        (None, -0.1, "must be 0 to 1"),
        (None, float("nan"), "must be 0 to 1"),
        ("precision=95", 0.0, "above 0 and at most 1"),
        ("precision=", 0.0, "above 0 and at most 1"),
    ):
        with pytest.raises(UserError, match=message):
            find_thresholds(tmp_path, model, given, minimum)


def test_predict_and_evaluate_choose_the_same_thresholds(audio_run, recordings, tmp_path, capsys):
    """On the validation files, kept predictions have the precision; the API agrees."""
    file = tmp_path / "thresholds.csv"
    arguments = ["--thresholds", str(file), "--precision", "0.9"]
    assert evaluate.main([str(audio_run), *arguments]) == 0
    said = capsys.readouterr().err
    assert "for a precision of 0.9 keep" in said
    assert "fewer than 10 labeled files were predicted as voice0 (" in said
    outs = []
    for number, given in enumerate(("precision=0.9", str(file))):
        outs.append(tmp_path / f"{number}.csv")
        arguments = ["--thresholds", given, "--out", str(outs[-1]), "--digits", "17"]
        assert predict.main([str(audio_run), str(recordings), *arguments]) == 0
    table = read_csv(outs[0])
    assert outs[0].read_bytes() == outs[1].read_bytes()
    thresholds = {row["class"]: float(row["threshold"]) for row in read_csv(file)}
    for row in table:
        if row["status"] == "ok":
            assert float(row["probability"]) >= thresholds[row["label"]]
    model = meljax.load(audio_run)
    found = model.predict(recordings, thresholds=file)
    assert [row["status"] for row in found] == [row["status"] for row in table]


def test_a_high_minimum_makes_all_rows_unknown(audio_run, recordings, tmp_path, capsys):
    path = str(recordings / "voice0")
    assert predict.main([str(audio_run), path, "--min-probability", "1"]) == 0
    assert "(unknown)" in capsys.readouterr().out
    found = meljax.load(audio_run).predict(path, min_probability=1.0)
    assert set(found.labels) == {None}
    assert all(
        row["probability"] == each.max()
        for row, each in zip(found, found.probabilities, strict=True)
    )
    assert predict.main([str(audio_run), path, "--min-probability", "1.1"]) == 2


def test_a_run_without_predictions_is_reported(audio_run, recordings, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(audio_run, run)
    (run / "predictions.csv").unlink()
    arguments = [str(run), str(recordings), "--thresholds", "precision=0.9"]
    assert predict.main(arguments) == 2
    assert "has no predictions.csv; to write it" in capsys.readouterr().err


def test_a_precision_without_a_file_is_refused(audio_run, capsys):
    assert evaluate.main([str(audio_run), "--precision", "0.9"]) == 2
    assert "--precision is for --thresholds" in capsys.readouterr().err
