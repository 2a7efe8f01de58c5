"""The page of a run: right numbers, complete images, any names, no external content."""

import dataclasses
import io
import re

import jinja2
import numpy as np
import pytest
import soundfile
from PIL import Image
from samples import (
    APART,
    AUDIO,
    HOSTILE,
    IMAGENET,
    ODD,
    Page,
    assert_same_page,
    confused,
    four_scores,
    inlined,
    make_named,
    make_results,
    mistake,
    rows_of,
    scored,
    section_under,
    table_under,
)

from meljax import config
from meljax.evaluation import calibration, statistics
from meljax.features.axes import image_axes
from meljax.features.frontend import Frontend
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.reports import figures, html_page, media, run_page
from meljax.reports.class_scores import confused_pairs
from meljax.reports.confusion_table import confusion_table
from meljax.reports.run_page import lowest_before_rise
from meljax.runs.directory import REPORT
from meljax.runs.results import MaskExample

NOT_PRETRAINED = "was not pretrained"


LINKS = {name: name for name in run_page.FILES}


def page(results):
    return run_page.page(results, LINKS, APART)


def write_report(workdir, results):
    """Writes the report to the run, as training does."""
    return run_page.write_report(workdir, results, workdir)


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A report with unusual names, in a directory with an unusual name."""
    workdir = tmp_path_factory.mktemp("runs") / "<b>&姓\udce9"
    workdir.mkdir()
    for name in run_page.FILES:
        (workdir / name).write_text("")
    results = make_results(ODD, warnings=tuple(ODD), skipped=tuple(f"{name}: bad" for name in ODD))
    image = np.repeat(results.mistakes[0].seen.image, 3, 2)
    mistakes = [mistake(f"{n}/a.wav", n, ODD[0], image) for n in ODD]
    masks = [MaskExample(ODD[3], ODD[0], image, image)]
    results = dataclasses.replace(results, name=ODD[3], mistakes=mistakes, mask_examples=masks)
    return workdir, write_report(workdir, results)


def test_every_image_is_in_the_page_and_can_be_decoded(odd_run):
    workdir, path = odd_run
    seen = Page(path.read_text())
    assert len(seen.images) == 7 + 2 * len(ODD) + 2
    for url in seen.images:
        image = decoded(url)
        assert min(image.shape[:2]) > 100
    assert not (workdir / html_page.FIGURES).exists()


def test_the_page_loads_nothing_and_links_to_the_runs_own_files(odd_run):
    text = odd_run[1].read_text()
    seen = Page(text)
    assert seen.links == list(run_page.FILES)
    assert all(name.startswith("data:image/png;base64,") for name in seen.images)
    assert not {tag for tag, *_ in seen.tags} & {"link", "iframe", "object"}
    assert [tag for tag in seen.tags if tag[0] == "script"] == [("script",)]  # without 'src'
    assert not any(word in text for word in ("http:", "https:", "url(", "@import", 'src="//'))


@pytest.mark.parametrize("limit", [0, 100_000])
def test_many_files_are_kept_beside_the_page_which_says_so(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(html_page, "INLINED_BYTES", limit)
    results = make_results(audio=np.zeros(16_000, np.float32))
    seen = Page(write_report(tmp_path, results).read_text())
    assert "too large to be in it" in seen.shown
    assert set(seen.images + seen.recordings) == {
        f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()
    }
    for name in seen.images:
        with Image.open(tmp_path / name) as image:
            image.load()
    monkeypatch.undo()
    seen = Page(write_report(tmp_path, results).read_text())
    assert "too large" not in seen.shown
    assert not (tmp_path / "figures").exists()
    assert {url[:10] for url in seen.images + seen.recordings} == {"data:image", "data:audio"}


def test_unusual_names_are_shown_as_text_in_valid_utf8(odd_run):
    path = odd_run[1]
    assert path == odd_run[0] / REPORT
    seen = Page(path.read_bytes().decode())
    assert not seen.open
    for name in ("<b>&\"'/a.wav", "姓名/a.wav", "🦉/a.wav", "caf?/a.wav", "$x_$/a.wav"):
        assert name in seen.shown
    assert "predicted as 姓名" in seen.shown


def test_unusual_names_are_escaped_in_attributes(odd_run):
    shown = [name.encode(errors="replace").decode() for name in ODD]
    alts = Page(odd_run[1].read_text()).alts
    for name in shown:
        words = f"Spectrogram of {name}/a.wav: {name}, predicted as {shown[0]} with 90.0%."
        assert words in alts
    assert f"The evidence for {shown[0]} in it." in alts
    assert f"Spectrogram of {shown[3]} after masking." in alts


def test_names_never_become_markup():
    assert_same_page(*(page(make_named(word)) for word in ("plainword", HOSTILE)))


def test_figures_number_undrawable_names_and_shorten_long_ones():
    names = [figures.drawable_name(ODD, i) for i in range(len(ODD))]
    assert names[:6] == [ODD[0], "#2", "#3", "#4", ODD[4], "#6"]
    assert len(names[6]) == 20


@pytest.mark.parametrize("mistakes", [0, 1, 5])
def test_headline_holds_the_scores_and_intervals_of_the_last_epoch(mistakes):
    shown = Page(page(make_results(mistakes=mistakes, epochs=7))).shown
    last = scored("val", 7, False, 4, 20, mistakes)
    low, high = statistics.wilson(20 - mistakes, 20)
    bounds = statistics.bootstrap_macro_f1(last.confusion)
    f1 = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if mistakes else "no interval: no file was wrong"
    assert (
        f"After 7 epochs it gets {1 - mistakes / 20:.1%} of the validation recordings right "
        f"({low:.1%} to {high:.1%}), with a macro-F1 of {last.macro_f1:.1%} "
        f"({f1})." in shown
    )
    assert "was trained and scored on 100 recordings of" in shown
    assert "with 4 classes." in shown
    assert "most frequent class would get 25.0% right" in shown


def test_the_best_epoch_is_called_chosen_and_the_test_split_unused():
    shown = Page(page(make_results(epochs=9, scores=four_scores()))).shown
    assert "The best epoch, 6, got 90.0%" in shown
    assert "chosen on these files: expect lower scores" in shown
    low, high = statistics.wilson(30, 40)
    test = f"The last epoch gets 75.0% ({low:.1%} to {high:.1%}) of the 40 test recordings right"
    assert test in shown
    assert "These files were not used for training or choosing an epoch." in shown
    assert shown.count("best epoch, chosen on") == 2


def test_a_best_epoch_that_is_also_the_last_is_listed_once():
    scores = [scored("val", 4, chosen, 4, 20, 5) for chosen in (False, True)]
    shown = Page(page(make_results(scores=scores))).shown
    assert "The last epoch is also the best one." in shown
    assert "chosen on" not in shown
    assert "test recordings" not in shown


def test_the_table_of_scores_has_a_row_per_weights_and_split():
    scores = four_scores()
    header, *rows = table_under("Scores", page(make_results(epochs=9, scores=scores)))
    assert header == ["weights of", "epoch", "files", "accuracy", "macro-F1", "loss"]
    assert [row[:3] for row in rows] == [
        ["last epoch", "9", "validation, 20"],
        ["best epoch, chosen on the same files", "6", "validation, 20"],
        ["last epoch", "9", "test, 40"],
        ["best epoch, chosen on the validation set", "6", "test, 40"],
    ]
    for row, each in zip(rows, scores, strict=True):
        assert row[3].startswith(f"{each.accuracy:.1%} (")
        assert row[4].startswith(f"{each.macro_f1:.1%} (")
        assert row[5] == f"{each.loss:.3f}"


def test_a_page_of_one_epoch_and_one_mistake_is_complete(tmp_path):
    seen = Page(write_report(tmp_path, make_results(epochs=1, mistakes=1)).read_text())
    assert "After 1 epoch it" in seen.shown
    assert "The last epoch, 1, gets 1 of 20 validation files wrong." in seen.shown
    assert "best" not in seen.shown.split("Scores")[0]
    assert sum(alt.startswith("Spectrogram of 0.wav:") for alt in seen.alts) == 1


def test_the_page_says_that_there_are_no_mistakes():
    seen = Page(page(make_results(mistakes=0)))
    assert "None: all 20 validation files are right." in seen.shown
    assert "No class was confused with another." in seen.shown
    assert not any("mistake" in name for name in seen.images)


def test_the_page_says_when_only_some_mistakes_are_shown():
    scores = [scored("val", 4, chosen, 4, 20, 9) for chosen in (False, True)]
    shown = Page(page(make_results(mistakes=2, scores=scores))).shown
    assert "The last epoch, 4, gets 9 of 20 validation files wrong." in shown
    assert "The 2 most confident mistakes are shown." in shown


@pytest.mark.parametrize(
    ("settings", "weights", "due"),
    [
        ({}, WeightsOrigin("random", reason="no weights were found"), True),
        ({}, WeightsOrigin("random"), True),
        ({}, IMAGENET, False),
        ({}, WeightsOrigin("file", "random", "0" * 64), False),
        ({"model.init": "scratch"}, WeightsOrigin("random"), False),
        ({"model.name": "cnn"}, WeightsOrigin("random"), False),
    ],
)
def test_missing_pretraining_is_a_warning_only_if_it_was_wanted(settings, weights, due):
    text = page(make_results(settings=settings, weights=weights))
    assert (NOT_PRETRAINED in text) == due
    assert ("<h2>Warnings</h2>" in text) == due


def test_warnings_and_skipped_files_come_before_the_scores():
    text = page(make_results(warnings=("twins in two classes",), skipped=("a.wav: empty",)))
    before = text[: text.index("<h2>Scores</h2>")]
    assert "twins in two classes" in before
    assert "1 unusable file skipped" in before
    assert "a.wav: empty" in before


@pytest.mark.parametrize(
    ("training", "validation", "lowest"),
    [
        ([3, 2, 1, 0.5, 0.2], [3, 2, 2.2, 2.5, 3], 1),
        ([3, 2, 1, 0.5, 0.2], [3, 2, 1.5, 1.2, 1], None),
        ([3, 2, 1, 0.5, 0.2], [3, 2, 1, 1.02, 1.03], None),
        ([3, 2, 2.5, 2.6, 3], [3, 2, 2.2, 2.5, 3], None),
        ([1, 0.1, 1e-5], [1, 1e-4, 2e-4], None),
        ([1], [1], None),
    ],
)
def test_overfitting_is_a_rising_validation_loss_while_the_training_loss_falls(
    training, validation, lowest
):
    assert lowest_before_rise(np.array(training, float), np.array(validation, float)) == lowest


def test_overfitting_is_reported_with_the_epoch_where_it_began():
    results = make_results(epochs=5)
    assert "Overfitting" not in page(results)
    for row, loss in zip(results.history, [3, 2, 2.2, 2.5, 3], strict=True):
        row["val_loss"] = loss
    shown = Page(page(results)).shown
    assert (
        "lowest (2) at epoch 2, 3 epochs before the end. It has risen since (to 3) while" in shown
    )


def test_alternative_texts_have_the_final_values():
    alts = " ".join(Page(page(make_results(epochs=8))).alts)
    assert "Training loss over 8 epochs: 1.76 after the first epoch, 0.1 after the last." in alts
    assert "training 100.0%, validation 80.0%. Best epoch: 7." in alts
    assert "training 90.0%, validation 70.0%" in alts


def test_the_worst_class_comes_first_and_absent_ones_last():
    scores = [scored("val", 4, chosen, 4, 20, 0) for chosen in (False, True)]
    labels, logits = scores[0].labels, scores[0].logits
    keep = labels != 2
    labels, logits, item = labels[keep], logits[keep].copy(), np.arange(keep.sum())
    logits[labels.tolist().index(3)] = 9 * np.eye(4)[1]
    scores = [dataclasses.replace(s, labels=labels, logits=logits, item=item) for s in scores]
    text = page(make_results(scores=scores))
    table = text[text.index("<h2>Classes</h2>") : text.index("<h2>Worst mistakes</h2>")]
    places = [table.index(f'<td class="name">{name}</td>') for name in ("di", "bob", "ann", "cy")]
    assert places == sorted(places)
    assert table.count('<td class="number">–</td>') == 3
    assert "<b>di</b> predicted as <b>bob</b>: 1 of 5 files" in " ".join(text.split())


def test_each_class_has_its_own_precision_and_recall():
    """Of 10 files of ann, the last epoch predicts 6 right; 8 files are predicted as ann."""
    scores = [confused([[6, 3, 1], [0, 8, 0], [2, 0, 4]])]
    scores.append(confused([[8, 0, 2], [4, 4, 0], [0, 1, 5]], epoch=3, chosen=True))
    text = page(make_results(("ann", "bob", "cy"), scores=scores))
    header, *rows = class_rows(text, last=True)
    assert header == ["class", "files", "recall", "precision", "F1", "most confused with"]
    assert sorted(rows) == [
        ["ann", "10", "60.0%", "75.0%", "66.7%", "bob (3)"],
        ["bob", "8", "100.0%", "72.7%", "84.2%", ""],
        ["cy", "6", "66.7%", "80.0%", "72.7%", "ann (2)"],
    ]
    pairs = re.findall(r"<li>.*?</li>", text.split("The same for the last epoch, 4:")[1], re.DOTALL)
    assert [Page(pair).shown for pair in pairs[:3]] == [
        "ann predicted as bob: 3 of 10 files",
        "cy predicted as ann: 2 of 6 files",
        "ann predicted as cy: 1 of 10 files",
    ]


def test_a_class_without_files_or_without_predictions_lacks_only_what_is_undefined():
    """No prediction is bob; one prediction is cy, but no file is of class cy."""
    scores = [confused([[3, 0, 1], [2, 0, 0], [0, 0, 0]])]
    _, *rows = class_rows(page(make_results(("ann", "bob", "cy"), scores=scores)))
    assert sorted(rows) == [
        ["ann", "4", "75.0%", "60.0%", "66.7%", "cy (1)"],
        ["bob", "2", "0.0%", "–", "0.0%", "ann (2)"],
        ["cy", "0", "–", "0.0%", "0.0%", ""],
    ]


def test_recall_and_precision_of_each_class_have_wilsons_intervals():
    scores = [confused([[6, 4], [3, 9]])]
    rows = table_under("Classes", page(make_results(("ann", "bob"), scores=scores)))[1:]
    for name, right, files, predicted in (("ann", 6, 10, 9), ("bob", 9, 12, 13)):
        (row,) = (each for each in rows if each[0] == name)
        for cell, trials in ((row[2], files), (row[3], predicted)):
            low, high = statistics.wilson(right, trials)
            assert cell == f"{right / trials:.1%} ({low:.1%} to {high:.1%})"


def test_the_weights_that_predict_uses_come_before_those_of_the_last_epoch():
    scores = [
        confused([[6, 4], [3, 9]], epoch=4),
        confused([[9, 1], [0, 12]], epoch=2, chosen=True),
    ]
    seen = page(make_results(("ann", "bob"), scores=scores))
    assert "Weights of the best epoch, 2, which predict uses; validation files." in Page(seen).shown
    (ann,) = (row for row in class_rows(seen) if row[0] == "ann")
    assert ann == ["ann", "10", "90.0%", "100.0%", "94.7%", "bob (1)"]
    (ann,) = (row for row in class_rows(seen, last=True) if row[0] == "ann")
    assert ann == ["ann", "10", "60.0%", "66.7%", "63.2%", "bob (4)"]
    assert [matrix[1:] for matrix in matrices(seen)] == [
        [["ann", "9", "1"], ["bob", "", "12"]],
        [["ann", "6", "4"], ["bob", "3", "9"]],
    ]


def test_weights_that_are_the_last_and_the_best_are_shown_once():
    scores = [confused([[6, 4], [3, 9]], chosen=chosen) for chosen in (False, True)]
    text = page(make_results(("ann", "bob"), scores=scores))
    assert "Weights of the last epoch, 4, which predict uses" in Page(text).shown
    assert len(matrices(text)) == 1
    assert "The same for the last epoch" not in text


def test_without_the_best_weights_the_last_ones_are_shown():
    text = page(make_results(("ann", "bob"), scores=[confused([[6, 4], [3, 9]])]))
    assert "Weights of the last epoch, 4; those of the best one are lost" in Page(text).shown
    assert len(matrices(text)) == 1


def class_rows(text, last=False):
    """Returns the table of classes for the best or the last epoch, without intervals."""
    best, *other = section_under("Classes", text).split("<details>")
    table = rows_of(other[0].split("</table>")[1] if last else best)
    return [[re.sub(r" \(.*%\)$", "", cell) for cell in row] for row in table]


def matrices(text):
    """Returns the rows of each confusion matrix."""
    found = re.findall(r'<table class="matrix">(.*?)</table>', text, re.DOTALL)
    return [rows_of(table) for table in found]


@pytest.mark.parametrize("classes", [40, 41])
def test_of_many_classes_the_most_confused_ones_are_in_the_matrix(classes):
    """Class 1 is predicted as 2 and 7, class 5 as 3, and class 9 as itself."""
    confusion = np.zeros((classes, classes), int)
    confusion[1, [1, 2, 7]] = 5, 4, 1
    confusion[5, 3], confusion[9, 9] = 3, 8
    text = page(make_results([f"c{i}" for i in range(classes)], scores=[confused(confusion)]))
    (matrix,) = matrices(text)
    if classes == 40:
        assert len(matrix) == 41
        assert matrix[0] == ["", *(f"c{i}" for i in range(40))]
        assert " data-search>" not in text
    else:
        assert matrix[0] == ["", "c1", "c2", "c5", "c3", "c7", "others"]
        assert matrix[1] == ["c1", "5", "4", "", "", "1", ""]
        assert matrix[3] == ["c5", "", "", "", "3", "", ""]
        assert "Of 41 classes, the 5 most confused ones are shown." in Page(text).shown
        assert text.count(" data-search>") == 2


def test_predictions_as_classes_that_are_not_in_the_matrix_are_counted():
    confusion = np.diag([9] * 60) + np.diag(range(1, 60), 1)
    found = confusion_table(confusion, [f"c{i}" for i in range(60)])
    order = [58, 59, *range(57, 19, -1)]  # the most frequent pair is 59 times 58 → 59
    assert found.names == [f"c{i}" for i in order]
    assert not found.complete
    for label, cells, others in zip(order, found.rows, found.others, strict=True):
        counted = sum(cell.count for cell in cells if cell)
        assert counted + others == confusion[label].sum()
    assert found.rows[0][:2] == [(9, 13, True), (59, 87, False)]


def test_confused_pairs_are_the_largest_counts_off_the_diagonal():
    confusion = np.array([[9, 1, 0], [3, 9, 0], [0, 2, 9]])
    assert confused_pairs(confusion, 2) == [(1, 0), (2, 1)]
    assert confused_pairs(confusion, 9) == [(1, 0), (2, 1), (0, 1)]


def test_the_circumstances_of_a_run_are_told():
    results = make_results(epochs=4, skipped=("a.wav: empty",))
    pace = zip(results.history, (9, 2, 3, 4), (10, 70, 80, 90), strict=True)
    for row, seconds, speed in pace:
        row.update(seconds=float(seconds), images_per_second=float(speed))
    rows = table_under("How to reproduce this run", page(results))
    told = dict(row for row in rows if len(row) == 2)
    counts = "90 training, 10 validation, 0 test"
    assert told["files"] == f"{counts}; 3 left out, 1 unusable skipped"
    assert told["time"] == (
        "18 s in total, 3.5 s per epoch (median), 75 images/s in training (median)"
    )
    assert told["device"] == "1 × cpu (cpu)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2.345, "2.35 s"),
        (99.0, "99 s"),
        (170.0, "3 min"),
        (5940.0, "99 min"),
        (7380.0, "2 h 3 min"),
    ],
)
def test_durations_are_in_a_suitable_unit(seconds, words):
    assert html_page.duration(seconds) == words


def test_changed_settings_are_bold_and_others_are_not():
    text = page(make_results(settings={"train.epochs": 4}))
    assert "<b><code>train.epochs</code></b>" in text
    assert "<b><code>train.seed</code></b>" not in text
    assert all(f"<code>{key}</code>" in text for key in config.KEYS)


def test_rewriting_changes_nothing_and_removes_old_files(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(html_page, "INLINED_BYTES", 0)
        write_report(tmp_path, make_results(mistakes=3))
        (tmp_path / "figures" / "mine.png").write_bytes(b"")
        results = dataclasses.replace(make_results(mistakes=1), mask_examples=[])
        states = []
        for _ in range(2):
            write_report(tmp_path, results)
            files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
            states.append({p.name: p.read_bytes() for p in files})
    assert states[0] == states[1]
    assert {"mistake_01.png", "mine.png"} <= states[0].keys()
    assert not [n for n in states[0] if n.startswith(("mistake_02", "mistake_03", "masks"))]
    write_report(tmp_path, results)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.png"]


def decoded(url):
    """Returns the pixels of an image that is in the page."""
    with Image.open(io.BytesIO(inlined(url))) as image:
        return np.asarray(image)


def drawn(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    with Image.open(file) as image:
        return np.asarray(image)


def test_each_figure_shows_the_data_of_its_name(tmp_path):
    best = confused([[7, 1], [4, 8]], epoch=3, chosen=True, temperature=0.5)
    scores = [confused([[5, 3], [1, 11]]), best, confused([[2, 6], [3, 9]], "test")]
    results = make_results(("ann", "bob"), scores=scores, settings={"train.lr_decay": 0.5})
    seen = Page(write_report(tmp_path, results).read_text())
    column = {key: np.array([row[key] for row in results.history]) for key in results.history[0]}
    epochs = column["epoch"].astype(int)
    bins = {
        "before": calibration.bins(best.raw_probabilities, best.labels),
        "after": calibration.bins(best.probabilities, best.labels),
    }
    accuracy, f1 = (
        [column[f"{split}_{n}"] for split in ("train", "val")] for n in ("accuracy", "f1")
    )
    train, val = column["train_loss"], column["val_loss"]
    expected = {
        "Loss over": figures.loss_curves(epochs, train, val),
        "Learning rate over": figures.rate_curve(epochs, 1e-4 * 0.5 ** (epochs - 1)),
        "Training loss": figures.loss_curve(epochs, train, "training"),
        "Validation loss": figures.loss_curve(epochs, val, "validation"),
        "Accuracy over": figures.score_curves(epochs, *accuracy, "Accuracy", 3),
        "Macro-F1 over": figures.score_curves(epochs, *f1, "Macro-F1", 3),
        "Accuracy by confidence": figures.reliability(bins),
    }
    urls = dict(zip(seen.alts, seen.images, strict=True))
    for name, figure in expected.items():
        (url,) = (url for alt, url in urls.items() if alt.startswith(name))
        np.testing.assert_array_equal(decoded(url), drawn(figure), name)


def test_a_constant_learning_rate_is_a_line_of_text():
    seen = Page(page(make_results(settings={"train.learning_rate": 3e-4})))
    assert "Learning rate: 0.0003 in every epoch." in seen.shown
    assert "figures/rate.png" not in seen.images
    seen = Page(page(make_results(epochs=3, settings={"train.lr_decay": 0.5})))
    alt = "Learning rate over 3 epochs: 0.0001 in the first, 2.5e-05 in the last."
    assert seen.alts[seen.images.index("figures/rate.png")] == alt


@pytest.mark.parametrize(
    ("epochs", "in_training", "words"),
    [
        (3, False, "was stopped after epoch 3 of 5; run the same command again to resume."),
        (3, True, "is being trained; these are the results of epoch 3 of 5."),
        (5, False, ""),
    ],
)
def test_an_unfinished_run_says_so(epochs, in_training, words):
    results = make_results(epochs=epochs, settings={"train.epochs": 5})
    shown = Page(page(dataclasses.replace(results, in_training=in_training))).shown
    assert ("This run is not finished. It " + words in shown) == bool(words)
    assert ("not finished" in shown) == bool(words)


@pytest.mark.parametrize(
    ("start", "frontend", "words"),
    [
        (8000, AUDIO, "window from 0.50 s to 1.50 s of the recording"),
        (-80, AUDIO, "the whole recording, padded to 1.00 s"),
        (12, Frontend("image", 98, 64, 3, 0, config.MelConfig()), "columns 12 to 110"),
        (0, Frontend("image", 24, 24, 3, 24, config.MelConfig()), ""),
    ],
)
def test_the_window_of_a_mistake_is_named(start, frontend, words):
    results = make_results(mistakes=1)
    (wrong,) = results.mistakes
    wrong = dataclasses.replace(wrong, seen=dataclasses.replace(wrong.seen, start=start))
    results = dataclasses.replace(results, mistakes=[wrong], frontend=frontend)
    cell = re.search("<figure>(.*?)</figure>", page(results), re.DOTALL)[1]
    assert Page(cell).shown == f"ann → bob (90.0%) 0.wav {words}".strip()


def test_mistakes_that_only_the_last_epoch_makes_are_folded():
    wrong = [mistake("late.wav", "ann", "cy", np.zeros((4, 6, 1), np.float32))]
    results = dataclasses.replace(make_results(scores=four_scores()), last_mistakes=wrong)
    text = page(results)
    shown, folded = text.split("<summary>1 that only the last epoch, 9, makes")
    assert "late.wav" not in shown
    assert "late.wav" in folded.split("</details>")[0]


def test_all_but_the_first_mistakes_are_folded():
    text = page(make_results(mistakes=9))
    first, *rest = re.split("<summary>3 more</summary>", text.split("<h2>Worst mistakes</h2>")[1])
    assert first.count("<audio") == 0
    assert first.count("<figure>") == run_page.OPEN_MISTAKES == 6
    assert rest[0].split("</details>")[0].count("<figure>") == 3


def test_images_are_shown_with_the_right_names(tmp_path):
    results = make_results(mistakes=3)
    shades = [np.full((6, 8, 1), share, np.float32) for share in (0.2, 0.4, 0.6, 0.8, 1)]
    warm, wrong = np.ones((6, 8), np.float32), []
    for number, each in enumerate(results.mistakes):
        path, share = f"{number}.wav", 0.9 - number / 10
        changed = {"path": path, "probability": share, "image": shades[number], "evidence": warm}
        changed["start"] = 8000 * number
        wrong.append(dataclasses.replace(each, seen=dataclasses.replace(each.seen, **changed)))
    masks = [MaskExample(f"m{n}.wav", "bob", shades[n], shades[n + 1]) for n in (0, 3)]
    results = dataclasses.replace(results, mistakes=wrong, mask_examples=masks)
    text = write_report(tmp_path, results).read_text()
    cells = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)

    def figure(image, start, evidence=None):
        return figures.spectrogram(image, image_axes(AUDIO, start), evidence, width=2.9)

    expected = [
        (f"ann → bob ({s.probability:.1%}) {s.path}", figure(s.image, s.start), overlaid)
        for s in (each.seen for each in wrong)
        for overlaid in [figure(s.image, s.start, s.evidence)]
    ]
    expected += [
        (f"bob, before and after {mask.path}", figure(mask.clean, 0), figure(mask.masked, 0))
        for mask in masks
    ]
    for cell, (caption, *images) in zip(cells, expected, strict=True):
        seen = Page(cell)
        assert seen.shown.startswith(caption)
        for url, wanted in zip(seen.images, images, strict=True):
            np.testing.assert_array_equal(decoded(url), drawn(wanted), caption)


def test_page_is_written_last(tmp_path, monkeypatch):
    def write(path, text):
        assert all((tmp_path / name).is_file() for name in Page(text).images)
        raise KeyboardInterrupt

    monkeypatch.setattr(html_page, "INLINED_BYTES", 0)
    monkeypatch.setattr(html_page, "write_atomically", write)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, make_results())
    assert not (tmp_path / REPORT).exists()


def test_the_character_set_is_declared_first_and_the_page_ends_with_a_line():
    text = page(make_results())
    assert '<meta charset="utf-8">' in text[:1024]
    assert text.endswith("</html>\n")


def test_a_template_without_its_values_is_a_bug():
    with pytest.raises(jinja2.UndefinedError):
        html_page.render("run.html.j2", title="x")


def test_the_most_confused_pairs_are_limited_and_ordered():
    confusion = np.diag([9] * 13) + np.diag(range(1, 13), 1)
    names = [f"c{i:02}" for i in range(13)]
    text = page(make_results(names, scores=[confused(confusion)]))
    pairs = re.findall(r"<li><b>(c\d\d)</b> predicted", text)
    assert pairs == [f"c{i:02}" for i in range(11, -1, -1)]
    assert "<summary>4 more</summary>" in text


def test_classes_of_equal_f1_are_ordered_by_recall():
    confusion = np.array([[2, 2, 0], [0, 4, 0], [0, 2, 2]]).T  # rows: true classes
    rows = class_rows(page(make_results("abc", scores=[confused(confusion)])))
    f1 = {row[0]: row[4] for row in rows[1:]}
    assert f1["a"] == f1["c"]
    assert [row[2] for row in rows[1:]] == sorted((row[2] for row in rows[1:]), key=_percent)


def _percent(text):
    return float(text.removesuffix("%"))


def test_warnings_have_a_box_only_if_there_are_any():
    assert "Warnings" not in Page(page(make_results())).shown
    assert "Warnings" in Page(page(make_results(warnings=("beware",)))).shown


@pytest.mark.parametrize(
    ("temperature", "words"),
    [(1.1, "overconfident"), (0.9, "underconfident"), (1.0, "it changes little")],
)
def test_the_effect_of_the_temperature_is_put_into_words(temperature, words):
    scores = [scored("val", 4, False, 4, 20, 2), scored("val", 3, True, 4, 20, 1)]
    scores[1] = dataclasses.replace(scores[1], temperature=temperature)
    shown = Page(page(make_results(scores=scores))).shown
    assert [w for w in (" overconfident", "underconfident", "changes little") if w in shown] == [
        f" {words}" if words == "overconfident" else words.removeprefix("it ")
    ]


def test_the_lead_has_the_test_score_of_the_last_epoch_alone():
    shown = Page(page(make_results(epochs=9, scores=four_scores()))).shown
    assert shown.count("test recordings right") == 1


def test_16_bit_recordings_are_played_unchanged():
    samples = np.arange(-(2**15), 2**15, 7, dtype=np.int16)
    sound = io.BytesIO(media.wav(samples / np.float32(2**15), 8000))
    np.testing.assert_array_equal(soundfile.read(sound, dtype="int16")[0], samples)
