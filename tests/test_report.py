"""The page of a run: right numbers, complete images, any names, no external content."""

import dataclasses
import re

import jinja2
import numpy as np
import pytest
from PIL import Image
from samples import (
    HOSTILE,
    IMAGENET,
    ODD,
    Page,
    assert_same_page,
    confused,
    four_scores,
    make_named,
    make_results,
    mistake,
    scored,
    table_under,
)

from meljax import config
from meljax.evaluation import calibration, statistics
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.reports import figures, html_page, run_page
from meljax.reports.class_scores import confused_pairs
from meljax.reports.run_page import lowest_before_rise
from meljax.runs.directory import REPORT
from meljax.runs.results import MaskExample

NOT_PRETRAINED = "was not pretrained"


LINKS = {name: name for name in run_page.FILES}


def page(results):
    return run_page.page(results, LINKS)


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


def test_every_image_exists_and_can_be_decoded(odd_run):
    workdir, path = odd_run
    seen = Page(path.read_text())
    assert len(seen.images) == 6 + 2 * len(ODD) + 2
    for name in seen.images:
        with Image.open(workdir / name) as image:
            image.load()
            assert min(image.size) > 100
    assert sorted(p.name for p in (workdir / html_page.FIGURES).iterdir()) == sorted(
        name.removeprefix("figures/") for name in seen.images
    )


def test_the_page_loads_only_the_runs_own_files(odd_run):
    text = odd_run[1].read_text()
    seen = Page(text)
    assert set(seen.links) == {*run_page.FILES, "figures/confusion.png"}
    assert all(name.startswith("figures/") for name in seen.images)
    tags = {tag for tag, *_ in seen.tags}
    assert not tags & {"script", "link", "iframe", "object"}
    assert not any(word in text for word in ("http:", "https:", "url(", "@import", 'src="//'))


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
    assert "numbers of the table" in page(make_results(ODD))
    assert "numbers of the table" not in page(make_results())


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
    assert "1 of 20 validation files are wrong" in seen.shown
    assert "best" not in seen.shown.split("Scores")[0]
    assert seen.images.count("figures/mistake_01.png") == 1


def test_the_page_says_that_there_are_no_mistakes():
    seen = Page(page(make_results(mistakes=0)))
    assert "None: all 20 validation files are right." in seen.shown
    assert "No class was confused with another." in seen.shown
    assert not any("mistake" in name for name in seen.images)


def test_the_page_says_when_only_some_mistakes_are_shown():
    scores = [scored("val", 4, chosen, 4, 20, 9) for chosen in (False, True)]
    shown = Page(page(make_results(mistakes=2, scores=scores))).shown
    assert "9 of 20 validation files are wrong" in shown
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
    header, *rows = table_under("Classes", text)
    assert header == ["#", "class", "files", "precision", "recall", "F1"]
    assert sorted(rows) == [
        ["1", "ann", "10", "75.0%", "60.0%", "66.7%"],
        ["2", "bob", "8", "72.7%", "100.0%", "84.2%"],
        ["3", "cy", "6", "80.0%", "66.7%", "72.7%"],
    ]
    pairs = re.findall(r"<li>.*?</li>", text.split("<h3>Most confused</h3>")[1], re.DOTALL)
    assert [Page(pair).shown for pair in pairs] == [
        "ann predicted as bob: 3 of 10 files",
        "cy predicted as ann: 2 of 6 files",
        "ann predicted as cy: 1 of 10 files",
    ]


def test_a_class_without_files_or_without_predictions_lacks_only_what_is_undefined():
    """No prediction is bob; one prediction is cy, but no file is of class cy."""
    scores = [confused([[3, 0, 1], [2, 0, 0], [0, 0, 0]])]
    _, *rows = table_under("Classes", page(make_results(("ann", "bob", "cy"), scores=scores)))
    assert sorted(rows) == [
        ["1", "ann", "4", "60.0%", "75.0%", "66.7%"],
        ["2", "bob", "2", "–", "0.0%", "0.0%"],
        ["3", "cy", "0", "0.0%", "–", "0.0%"],
    ]


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


def test_rewriting_changes_nothing_and_removes_old_mistakes(tmp_path):
    write_report(tmp_path, make_results(mistakes=3))
    (tmp_path / "figures" / "mine.png").write_bytes(b"")
    results = make_results(mistakes=1)
    states = []
    for _ in range(2):
        write_report(tmp_path, results)
        files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
        states.append({p.name: p.read_bytes() for p in files})
    assert states[0] == states[1]
    assert {"mistake_01.png", "mine.png"} <= states[0].keys()
    assert not {"mistake_02.png", "mistake_03.png"} & states[0].keys()


def test_a_page_without_masks_leaves_none_of_an_earlier_one(tmp_path):
    write_report(tmp_path, make_results())
    assert list((tmp_path / "figures").glob("masks_*"))
    write_report(tmp_path, dataclasses.replace(make_results(), mask_examples=[]))
    assert not list((tmp_path / "figures").glob("masks_*"))


def drawn(figure, file, **how):
    figure.savefig(file, **how)
    with Image.open(file) as image:
        return np.asarray(image)


def test_each_figure_shows_the_data_of_its_name(tmp_path):
    best = confused([[7, 1], [4, 8]], epoch=3, chosen=True, temperature=0.5)
    scores = [confused([[5, 3], [1, 11]]), best, confused([[2, 6], [3, 9]], "test")]
    results = make_results(("ann", "bob"), scores=scores)
    write_report(tmp_path, results)
    column = {key: np.array([row[key] for row in results.history]) for key in results.history[0]}
    epochs = column["epoch"].astype(int)
    bins = {
        "before": calibration.bins(best.raw_probabilities, best.labels),
        "after": calibration.bins(best.probabilities, best.labels),
    }
    accuracy, f1 = (
        [column[f"{split}_{n}"] for split in ("train", "val")] for n in ("accuracy", "f1")
    )
    expected = {
        "training_loss": figures.loss_curve(epochs, column["train_loss"], "training"),
        "validation_loss": figures.loss_curve(epochs, column["val_loss"], "validation"),
        "accuracy": figures.score_curves(epochs, *accuracy, "Accuracy", 3),
        "f1": figures.score_curves(epochs, *f1, "Macro-F1", 3),
        "calibration": figures.reliability(bins),
        "confusion": figures.confusion_matrix(scores[0].confusion, results.classes),
    }
    for name, figure in expected.items():
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            found = np.asarray(image)
        how = {"bbox_inches": "tight"} if name == "confusion" else {}
        np.testing.assert_array_equal(found, drawn(figure, tmp_path / "expected.png", **how), name)


def test_images_are_shown_with_the_right_names(tmp_path):
    results = make_results(mistakes=3)
    shades = [np.full((6, 8, 1), share, np.float32) for share in (0.2, 0.4, 0.6, 0.8, 1)]
    warm, wrong = np.ones((6, 8), np.float32), []
    for number, each in enumerate(results.mistakes):
        path, share = f"{number}.wav", 0.9 - number / 10
        changed = {"path": path, "probability": share, "image": shades[number], "evidence": warm}
        wrong.append(dataclasses.replace(each, seen=dataclasses.replace(each.seen, **changed)))
    masks = [MaskExample(f"m{n}.wav", "bob", shades[n], shades[n + 1]) for n in (0, 3)]
    results = dataclasses.replace(results, mistakes=wrong, mask_examples=masks)
    text = write_report(tmp_path, results).read_text()
    cells = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    expected = [
        (f"ann → bob ({each.probability:.1%}) {each.path}", each.image, overlaid)
        for each in (each.seen for each in wrong)
        for overlaid in [figures.overlay(each.image, each.evidence)]
    ]
    expected += [(f"bob, before and after {mask.path}", mask.clean, mask.masked) for mask in masks]
    for cell, (caption, *images) in zip(cells, expected, strict=True):
        seen = Page(cell)
        assert seen.shown == caption
        for name, pixels in zip(seen.images, images, strict=True):
            with Image.open(tmp_path / name) as image:
                found = np.asarray(image)
            wanted = drawn(figures.image(pixels), tmp_path / "expected.png")
            np.testing.assert_array_equal(found, wanted, caption)


def test_page_is_written_last(tmp_path, monkeypatch):
    def write(path, text):
        assert all((tmp_path / name).is_file() for name in Page(text).images)
        raise KeyboardInterrupt

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


@pytest.mark.parametrize(("classes", "counted"), [(30, True), (31, False)])
def test_counts_are_left_out_of_a_large_matrix(classes, counted):
    shown = Page(page(make_results([f"c{i}" for i in range(classes)], mistakes=0))).shown
    assert ("Counts are left out" not in shown) == counted


def test_the_most_confused_pairs_are_limited_and_ordered():
    confusion = np.diag([9] * 13) + np.diag(range(1, 13), 1)
    names = [f"c{i:02}" for i in range(13)]
    text = page(make_results(names, scores=[confused(confusion)]))
    pairs = re.findall(r"<li><b>(c\d\d)</b> predicted", text)
    assert pairs == [f"c{i:02}" for i in range(11, 3, -1)]


def test_classes_of_equal_f1_are_ordered_by_recall():
    confusion = np.array([[2, 2, 0], [0, 4, 0], [0, 2, 2]]).T  # rows: true classes
    rows = table_under("Classes", page(make_results("abc", scores=[confused(confusion)])))
    f1 = {row[1]: row[5] for row in rows[1:]}
    assert f1["a"] == f1["c"]
    assert [row[4] for row in rows[1:]] == sorted((row[4] for row in rows[1:]), key=_percent)


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


@pytest.mark.parametrize(("columns", "wide"), [(12, True), (8, False)])
def test_wide_spectrograms_are_shown_one_above_the_other(columns, wide):
    image = np.zeros((6, columns, 1), np.float32)
    wrong = [mistake("a.wav", "ann", "bob", image)]
    results = dataclasses.replace(make_results(), mistakes=wrong)
    assert ('class="two wide"' in page(results)) == wide


def test_the_lead_has_the_test_score_of_the_last_epoch_alone():
    shown = Page(page(make_results(epochs=9, scores=four_scores()))).shown
    assert shown.count("test recordings right") == 1
