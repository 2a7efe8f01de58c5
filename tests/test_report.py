"""What a page holds for any run: true numbers, whole pictures, any name, nothing from outside."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from samples import ODD, Page, make_results, scored

from meljax import config, intervals, runs
from meljax.pages import figures, parts
from meljax.pages import run as run_page
from meljax.pages.run import confused_pairs, lowest_before_rise
from meljax.results import MaskExample, Mistake

NOT_PRETRAINED = "was not pretrained"


LINKS = {name: name for name in run_page.FILES}


def page(results):
    return run_page.page(results, LINKS)


def write_report(workdir, results):
    """Writes into the run itself, as training does."""
    return run_page.write_report(workdir, results, workdir)


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A report full of odd names, in a directory with one."""
    workdir = tmp_path_factory.mktemp("runs") / "<b>&姓\udce9"
    workdir.mkdir()
    for name in run_page.FILES:
        (workdir / name).write_text("")
    results = make_results(ODD, warnings=ODD, skipped=[f"{name}: bad" for name in ODD])
    picture = np.repeat(results.mistakes[0].picture, 3, 2)
    mistakes = [Mistake(f"{n}/a.wav", n, ODD[0], 0.9, picture, picture[..., 0], None) for n in ODD]
    masks = [MaskExample(ODD[3], ODD[0], picture, picture)]
    results = dataclasses.replace(results, name=ODD[3], mistakes=mistakes, mask_examples=masks)
    return workdir, write_report(workdir, results)


def test_every_picture_lies_there_and_can_be_decoded(odd_run):
    workdir, path = odd_run
    seen = Page(path.read_text())
    assert len(seen.images) == 6 + 2 * len(ODD) + 2
    for name in seen.images:
        with Image.open(workdir / name) as image:
            image.load()
            assert min(image.size) > 100
    assert sorted(p.name for p in (workdir / parts.FIGURES).iterdir()) == sorted(
        name.removeprefix("figures/") for name in seen.images
    )


def test_nothing_is_referred_to_but_the_runs_own_files(odd_run):
    text = odd_run[1].read_text()
    seen = Page(text)
    assert set(seen.links) == {*run_page.FILES, "figures/confusion.png"}
    assert all(name.startswith("figures/") for name in seen.images)
    assert not seen.tags & {"script", "link", "iframe", "object"}
    assert not any(word in text for word in ("http:", "https:", "url(", "@import", 'src="//'))


def test_odd_names_are_shown_as_text_on_a_page_of_valid_utf8(odd_run):
    path = odd_run[1]
    assert path == odd_run[0] / runs.REPORT
    seen = Page(path.read_bytes().decode())
    assert not seen.open
    for name in ("<b>&\"'/a.wav", "姓名/a.wav", "🦉/a.wav", "caf?/a.wav", "$x_$/a.wav"):
        assert name in seen.shown
    assert "taken for 姓名" in seen.shown.replace("\n", " ")


def test_names_that_figures_cannot_write_become_numbers_and_long_ones_short():
    names = [figures.drawable_name(ODD, i) for i in range(len(ODD))]
    assert names[:6] == [ODD[0], "#2", "#3", "#4", ODD[4], "#6"]
    assert len(names[6]) == 20
    assert "number in the table" in page(make_results(ODD))
    assert "number in the table" not in page(make_results())


@pytest.mark.parametrize("mistakes", [0, 1, 5])
def test_headline_holds_the_scores_and_intervals_of_the_last_epoch(mistakes):
    shown = Page(page(make_results(mistakes=mistakes, epochs=7))).shown
    last = scored("val", 7, False, 4, 20, mistakes)
    low, high = intervals.wilson(20 - mistakes, 20)
    bounds = intervals.bootstrap_macro_f1(last.confusion)
    f1 = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if mistakes else "no interval without a mistake"
    assert (
        f"After 7 epochs it gets {1 - mistakes / 20:.1%} of the validation recordings right "
        f"({low:.1%} to {high:.1%}), with a macro-F1 of {last.macro_f1:.1%} "
        f"({f1})." in shown
    )
    assert "4 classes apart from 100 recordings" in shown
    assert "most frequent class would get 25.0% right" in shown


def test_best_epoch_is_marked_as_chosen_and_the_test_set_as_untouched():
    scores = [
        scored("val", 9, False, 4, 20, 5),
        scored("val", 6, True, 4, 20, 2),
        scored("test", 9, False, 4, 40, 10),
        scored("test", 6, True, 4, 40, 4),
    ]
    shown = Page(page(make_results(epochs=9, scores=scores))).shown
    assert "The best epoch, 6, got 90.0%" in shown
    assert "chosen on these same files: expect less" in shown
    low, high = intervals.wilson(30, 40)
    test = shown[shown.index("On the 40 test recordings") :]
    assert f"the last epoch gets 75.0% ({low:.1%} to {high:.1%}) right" in test
    assert shown.count("best epoch, chosen on") == 2


def test_a_best_epoch_that_is_the_last_is_listed_once():
    scores = [scored("val", 4, chosen, 4, 20, 5) for chosen in (False, True)]
    shown = Page(page(make_results(scores=scores))).shown
    assert "The last epoch is also the best one." in shown
    assert "chosen on" not in shown
    assert "test recordings" not in shown


def test_one_epoch_and_one_mistake_make_a_whole_page(tmp_path):
    seen = Page(write_report(tmp_path, make_results(epochs=1, mistakes=1)).read_text())
    assert "After 1 epoch it" in seen.shown
    assert "1 of 20 validation files got a wrong class" in seen.shown
    assert "best" not in seen.shown.split("Scores")[0]
    assert seen.images.count("figures/mistake_01.png") == 1


def test_no_mistakes_are_said_to_be_none():
    seen = Page(page(make_results(mistakes=0)))
    assert "None: all 20 validation files are right." in seen.shown
    assert "No class was taken for another." in seen.shown
    assert not any("mistake" in name for name in seen.images)


def test_some_of_many_mistakes_are_said_to_be_some():
    scores = [scored("val", 4, chosen, 4, 20, 9) for chosen in (False, True)]
    shown = Page(page(make_results(mistakes=2, scores=scores))).shown
    assert "9 of 20 validation files got a wrong class" in shown
    assert "The 2 surest mistakes are shown." in shown


@pytest.mark.parametrize(
    ("settings", "weights", "due"),
    [
        ({}, "random: no weights were found", True),
        ({}, "imagenet: a file", False),
        ({"model.init": "scratch"}, "random", False),
        ({"model.name": "cnn"}, "random", False),
    ],
)
def test_missing_pretraining_is_a_warning_only_where_it_was_wanted(settings, weights, due):
    text = page(make_results(settings=settings, weights=weights))
    assert (NOT_PRETRAINED in text) == due
    assert ("<h2>Warnings</h2>" in text) == due


def test_warnings_and_skipped_files_stand_before_the_scores():
    text = page(make_results(warnings=["twins in two classes"], skipped=["a.wav: empty"]))
    before = text[: text.index("<h2>Scores</h2>")]
    assert "twins in two classes" in before
    assert "1 file could not be used and was left out" in before
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
def test_overfitting_is_a_validation_loss_that_rises_while_training_falls(
    training, validation, lowest
):
    assert lowest_before_rise(np.array(training, float), np.array(validation, float)) == lowest


def test_overfitting_is_said_with_the_epoch_where_it_began():
    results = make_results(epochs=5)
    assert "Overfitting" not in page(results)
    for row, loss in zip(results.history, [3, 2, 2.2, 2.5, 3], strict=True):
        row["val_loss"] = loss
    shown = Page(page(results)).shown
    assert (
        "lowest (2) at epoch 2, 3 epochs before the end, and has risen since (to 3) while" in shown
    )


def test_alternative_texts_say_the_final_values():
    alts = " ".join(Page(page(make_results(epochs=8))).alts)
    assert "Training loss over 8 epochs: 1.76 after the first epoch, 0.1 after the last." in alts
    assert "training 100.0%, validation 80.0%. Best epoch: 7." in alts
    assert "training 90.0%, validation 70.0%" in alts


def test_classes_stand_worst_first_and_absent_ones_last():
    scores = [scored("val", 4, chosen, 4, 20, 0) for chosen in (False, True)]
    labels, logits = scores[0].labels, scores[0].logits
    keep = labels != 2
    labels, logits, item = labels[keep], logits[keep].copy(), np.arange(keep.sum())
    logits[labels.tolist().index(3)] = 9 * np.eye(4)[1]
    scores = [dataclasses.replace(s, labels=labels, logits=logits, item=item) for s in scores]
    text = page(make_results(scores=scores))
    table = text[text.index("<h2>Classes</h2>") : text.index("<h2>Worst mistakes</h2>")]
    places = [table.index(f"<td>{name}</td>") for name in ("di", "bob", "ann", "cy")]
    assert places == sorted(places)
    assert table.count('<td class="number">–</td>') == 3
    assert "<b>di</b> taken for <b>bob</b>: 1 of 5 files" in text


def test_confused_pairs_are_the_largest_counts_off_the_diagonal():
    confusion = np.array([[9, 1, 0], [3, 9, 0], [0, 2, 9]])
    assert confused_pairs(confusion, 2) == [(1, 0), (2, 1)]
    assert confused_pairs(confusion, 9) == [(1, 0), (2, 1), (0, 1)]


def test_changed_settings_are_bold_and_others_are_not():
    text = page(make_results(settings={"train.epochs": 4, "old.key": "x"}))
    assert "<b><code>train.epochs</code></b>" in text
    assert "<b><code>old.key</code></b>" in text
    assert "<b><code>train.seed</code></b>" not in text
    assert all(f"<code>{key}</code>" in text for key in config.KEYS)


def test_writing_again_changes_nothing_and_leaves_no_old_mistakes(tmp_path):
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


def test_page_is_written_last(tmp_path, monkeypatch):
    def write(path, text):
        assert all((tmp_path / name).is_file() for name in Page(text).images)
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "write_whole", write)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, make_results())
    assert not (tmp_path / runs.REPORT).exists()
