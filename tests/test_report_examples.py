"""Mistakes, recordings, evidence and calibration on the page of a run, and its summary."""

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from samples import APART, Page, four_scores, inlined, make_results, scored, table_under
from scipy.special import softmax

from meljax.evaluation import calibration
from meljax.evaluation.coverage import threshold_rows
from meljax.evaluation.groups import Groups
from meljax.features.samples import to_float
from meljax.reports import figures, run_page, summary
from meljax.runs.predictions import calibration_of, read_calibration, write_calibration

RNG = np.random.default_rng(0)


def audio(seconds: float, rate: int = 16_000):
    return RNG.integers(-(2**15), 2**15, int(seconds * rate)).astype(np.int16)


def calibrated(split, temperature, items=40, wrong=9):
    fitted = {"temperature": float(temperature), "fitted_here": split == "val"}
    return dataclasses.replace(scored(split, 4, True, 4, items, wrong), **fitted)


def test_the_recording_of_a_mistake_is_in_the_page_without_changes(tmp_path):
    heard = audio(0.3)
    results = make_results(audio=to_float(heard))
    seen = Page(run_page.write_report(tmp_path, results, tmp_path).read_text())
    assert len(seen.recordings) == 2
    assert not seen.open
    for url in seen.recordings:
        with soundfile.SoundFile(io.BytesIO(inlined(url))) as file:
            assert (file.format, file.subtype, file.samplerate) == ("WAV", "PCM_16", 16_000)
            np.testing.assert_array_equal(file.read(dtype="int16"), heard)


def test_recordings_are_loaded_only_when_they_are_played():
    text = run_page.page(make_results(audio=to_float(audio(0.1))), {}, APART)
    assert text.count('<audio controls preload="none"') == 2
    assert "<audio" not in run_page.page(make_results(), {}, APART)


def test_evidence_is_drawn_in_color_on_gray():
    image = np.full((4, 6, 3), 0.5, np.float32)
    warmth = np.zeros((4, 6), np.float32)
    warmth[:, 3:] = 1
    drawn = figures.overlay(image, warmth)
    assert drawn.shape == (4, 6, 3)
    assert np.ptp(drawn[:, :3], axis=-1).max() < 1e-6
    assert (drawn[:, 3:, 0] - drawn[:, 3:, 2]).min() > 0.3
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_the_page_shows_the_resolution_of_the_evidence():
    results = make_results()
    image = np.zeros((128, 129, 1), np.float32)
    wrong = [
        dataclasses.replace(
            each,
            seen=dataclasses.replace(each.seen, image=image, evidence=image[..., 0], grid=(4, 5)),
        )
        for each in results.mistakes
    ]
    shown = Page(run_page.page(dataclasses.replace(results, mistakes=wrong), {}, APART)).shown
    assert "on feature maps of 4 rows and 5 columns" in shown


def test_calibration_is_shown_before_and_after_with_its_files():
    splits = [calibrated("val", 0.5), calibrated("test", 0.5, items=24)]
    results = make_results(scores=[scored("val", 4, False, 4, 40, 9), *splits])
    text = run_page.page(results, {}, APART)
    assert "a temperature of <b>0.50</b>" in " ".join(text.split())
    assert "Below 1" in text
    header, *rows = table_under("Calibration", text)
    assert header[1:] == ["files", "loss before", "after", "calibration error before", "after"]
    assert [row[0] for row in rows] == [
        "validation, cross-fitted",
        "test, on files that the temperature was not fitted to",
    ]
    for split, row in zip(splits, rows, strict=True):
        measured = calibration_of(split)
        both = (measured.before, measured.after)
        assert measured.before != measured.after
        assert row[1:] == [
            str(len(split.labels)),
            *(f"{each.loss:.3f}" for each in both),
            *(f"{each.expected_calibration_error:.1%}" for each in both),
        ]


def test_before_is_without_the_temperature_and_after_is_with_it():
    split = calibrated("test", 0.5)
    measured = calibration_of(split)
    assert (measured.epoch, measured.temperature) == (4, 0.5)
    for scores, temperature in ((measured.before, 1.0), (measured.after, 0.5)):
        given = softmax(split.logits / temperature, -1)  # one window per item
        error = calibration.calibration_error(given, split.labels)
        assert scores.loss == pytest.approx(calibration.log_loss(given, split.labels))
        assert scores.expected_calibration_error == pytest.approx(error)


def test_without_the_best_weights_there_is_no_calibration(tmp_path):
    results = make_results(scores=[scored("val", 4, False, 4, 20, 2)])
    text = run_page.write_report(tmp_path, results, tmp_path).read_text()
    assert "Calibration" not in text
    assert not any("by confidence" in alt for alt in Page(text).alts)
    assert "calibration" not in summary.text(results)


def test_the_summary_has_a_line_for_the_calibration():
    best = calibrated("val", 2)
    results = make_results(scores=[scored("val", 4, False, 4, 40, 9), best])
    both = (calibration_of(best).before, calibration_of(best).after)
    errors = [f"{each.expected_calibration_error:.1%}" for each in both]
    losses = [f"{each.loss:.3f}" for each in both]
    assert summary.text(results).splitlines()[-1] == (
        f"calibration (best epoch): temperature 2.00; loss {losses[0]} without it, {losses[1]} "
        f"with it; calibration error {errors[0]} without, {errors[1]} with (cross-fitted)"
    )


def test_every_bin_with_files_is_drawn_at_its_position():
    best = calibrated("val", 0.4)
    sets = {
        "before": calibration.bins(best.raw_probabilities, best.labels),
        "after": calibration.bins(best.probabilities, best.labels),
    }
    panels = figures.reliability(sets).axes
    given = (best.raw_probabilities, best.probabilities)
    for upper, lower, probabilities in zip(panels[:2], panels[2:], given, strict=True):
        confidence = probabilities.max(-1)
        places = np.minimum((confidence * 15).astype(int), 14)
        held = np.unique(places)
        bars = {round(15 * bar.get_center()[0] - 0.5): bar.get_height() for bar in upper.patches}
        assert bars == pytest.approx({i: best.right[places == i].mean() for i in held})
        bars = {round(15 * bar.get_center()[0] - 0.5): bar.get_height() for bar in lower.patches}
        assert bars == pytest.approx({i: (places == i).mean() for i in held})
        lines = [line[0, 1] for line in upper.collections[0].get_segments()]
        assert lines == pytest.approx([confidence[places == i].mean() for i in held])


def test_the_summary_has_a_line_per_weights_and_split():
    text = summary.text(make_results(epochs=9, scores=four_scores()))
    *lines, calibrated_line = text.splitlines()
    assert calibrated_line.startswith("calibration (best epoch): ")
    for line, words, accuracy in zip(
        lines,
        (
            "last epoch (9): validation accuracy",
            "best epoch (6), chosen on the same data: validation accuracy",
            "last epoch (9): test accuracy",
            "best epoch (6), chosen on the validation set: test accuracy",
        ),
        ("75.0%", "90.0%", "75.0%", "90.0%"),
        strict=True,
    ):
        assert line.startswith(f"{words} {accuracy} (")


def test_the_summary_delays_the_start_of_training_by_no_import_for_pages():
    code = (
        "import sys, meljax.reports.summary, meljax.workflows.train; "
        "print({'matplotlib', 'jinja2', 'meljax.reports.html_page'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "set()\n"


def test_the_page_shows_what_thresholds_accept_and_reject(tmp_path):
    rng = np.random.default_rng(0)
    probes = {kind: rng.dirichlet(np.ones(4), 32) for kind in ("noise", "tones")}
    results = make_results(probes=probes)
    text = run_page.write_report(tmp_path, results, tmp_path).read_text()
    header, *rows = table_under("Thresholds", text)
    names = ["threshold", "files accepted", "accuracy of these", "noise rejected", "tones rejected"]
    assert header == names
    for row, expected in zip(rows, threshold_rows(results.best, probes), strict=True):
        assert row[0] == (f"{expected.threshold:g}" if expected.threshold else "none")
        accuracy = "–" if expected.accuracy is None else f"{expected.accuracy:.1%}"
        shares = [f"{share:.1%}" for share in expected.rejected.values()]
        assert row[1:] == [f"{expected.coverage:.1%}", accuracy, *shares]
    assert len(table_under("Thresholds", run_page.page(make_results(), {}, APART))[0]) == 3


def test_the_page_has_a_line_on_the_background():
    scores = [
        dataclasses.replace(scored("val", epoch, chosen, 4, 20, 3), unscored=(0,), background=0)
        for epoch, chosen in ((4, False), (3, True))
    ]
    results = make_results(scores=scores, settings={"data.background": "ann"})
    shown = Page(run_page.page(results, {}, APART)).shown
    assert f"Background ann, validation, epoch 3: {scores[1].background_shares.text()}." in shown
    assert "Answers with the background class ann are not accepted either." in shown
    plain = Page(run_page.page(make_results(), {}, APART)).shown
    assert "Background" not in plain
    assert "are not accepted either" not in plain


def grouped(speakers, items=40, wrong=9):
    """Scores of the last and the best epoch, where the items are of `speakers` in turn."""
    groups = Groups(tuple(f"s{i % speakers}" for i in range(items)), "speaker")
    return [
        dataclasses.replace(scored("val", epoch, chosen, 4, items, wrong), groups=groups)
        for epoch, chosen in ((4, False), (3, True))
    ]


def test_the_page_says_where_groups_decide_the_intervals():
    scores = grouped(10)
    results = make_results(scores=scores)
    text = run_page.page(results, {}, APART)
    shown = Page(text).shown
    low, high = scores[0].accuracy_interval.bounds
    words = f"({low:.1%} to {high:.1%} over 10 speakers)"
    assert f"validation recordings right {words}, with a macro-F1 of" in shown
    assert table_under("Scores", text)[1][3] == f"{scores[0].accuracy:.1%} {words}"
    assert "a bootstrap that draws whole groups" in shown
    assert "by the bootstrap of whole groups (speaker); there is none for files of fewer" in shown
    # Items are dealt to classes and speakers in turn: a class has files of 5 speakers.
    assert all("(" not in cell for row in table_under("Classes", text)[1:] for cell in row[2:3])
    assert "over 10 speakers: " in summary.text(results)
    plain = Page(run_page.page(make_results(), {}, APART)).shown
    assert "whole groups" not in plain
    assert "Wilson’s, which are wide for few files" in plain


def test_the_page_says_that_there_are_too_few_groups():
    results = make_results(scores=grouped(2))
    few = "(2 speakers: too few for an interval)"
    shown = Page(run_page.page(results, {}, APART)).shown
    assert shown.count(few) == 8  # accuracy and macro-F1, twice in the text and in the table
    assert summary.text(results).count(few) == 4


def test_a_run_that_is_not_calibrated_says_why(tmp_path):
    scores = [scored("val", 4, False, 4, 40, 9), scored("val", 3, True, 4, 40, 9).calibrated()]
    results = make_results(scores=scores)
    text = run_page.write_report(tmp_path, results, tmp_path).read_text()
    seen, note = Page(text), "40 validation items, at least 50 needed"
    assert f"Their probabilities are not calibrated: {note}." in seen.shown
    assert f"The probabilities are not calibrated: {note}." in seen.shown.split("Thresholds")[1]
    header, row = table_under("Calibration", text)
    before = calibration_of(scores[1]).before
    error = f"{before.expected_calibration_error:.1%}"
    assert header == ["", "files", "loss", "calibration error"]
    assert row == ["validation", "40", f"{before.loss:.3f}", error]
    assert "Accuracy by confidence; on the diagonal they are equal." in seen.alts
    assert summary.text(results).splitlines()[-1] == (
        f"calibration (best epoch): not calibrated: {note}; loss {before.loss:.3f}, "
        f"calibration error {error}"
    )


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    for scores in (calibrated("val", 0.5), scored("val", 3, True, 4, 40, 9).calibrated()):
        results = make_results(scores=[scores])
        write_calibration(tmp_path, results)
        read = read_calibration(tmp_path, results.info)
        assert read == calibration_of(scores)
        assert read.cross_fitted == (not read.note)
