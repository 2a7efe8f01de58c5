"""Accuracy against coverage, and the sounds that a threshold should reject."""

import dataclasses

import numpy as np
import pytest
from samples import scored
from test_scorer import make_model
from test_step import make_task

from meljax.data import probes, synthetic
from meljax.evaluation.coverage import accepted, coverage_curve, probe, threshold_rows
from meljax.evaluation.scores import Predicted
from meljax.features.samples import is_silent


def predicted(**attributes):
    """Four classes on 300 items with coarse probabilities, so that some are equal."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    probabilities = rng.dirichlet(np.ones(4), 300) + np.eye(4)[labels]
    probabilities = np.round(probabilities / probabilities.sum(1, keepdims=True), 1)
    return Predicted("val", 3, True, labels, (), probabilities, **attributes)


@pytest.mark.parametrize("background", [None, 2])
def test_rows_count_what_a_threshold_accepts(background):
    unscored = () if background is None else (background,)
    scores = predicted(unscored=unscored, background=background)
    sounds = {"noise": scores.probabilities[:40], "tones": scores.probabilities[40:50]}
    for row in threshold_rows(scores, sounds, (0.0, 0.5, 0.7, 1.0, 1.1)):
        files = hits = taken = 0
        for label, each in zip(scores.labels, scores.probabilities, strict=True):
            if label == background:
                continue
            files += 1
            if each.max() >= row.threshold and each.argmax() != background:
                taken += 1
                hits += each.argmax() == label
        assert row.coverage == taken / files
        assert row.accuracy == (pytest.approx(hits / taken) if taken else None)
        for kind, each in sounds.items():
            passed = accepted(each, row.threshold, background).sum()
            assert row.rejected[kind] == pytest.approx(1 - passed / len(each))


def test_without_a_threshold_everything_is_accepted():
    scores = predicted()
    (row,) = threshold_rows(scores, {}, (0.0,))
    assert (row.coverage, row.accuracy) == (1.0, scores.accuracy)


@pytest.mark.parametrize("background", [None, 2])
def test_the_curve_has_a_point_for_each_threshold(background):
    unscored = () if background is None else (background,)
    scores = predicted(unscored=unscored, background=background)
    coverage, accuracy = coverage_curve(scores)
    found = set(scores.probabilities.max(1)[scores.counted & (scores.predictions != background)])
    rows = threshold_rows(scores, {}, sorted(found, reverse=True))
    np.testing.assert_allclose(coverage, [row.coverage for row in rows])
    np.testing.assert_allclose(accuracy, [row.accuracy for row in rows])


def test_a_curve_without_accepted_files_is_empty():
    labels = np.array([0, 0, 1])
    certain = np.tile([0.0, 0.1, 0.9], (3, 1))
    scores = Predicted("val", 1, True, labels, (), certain, unscored=(2,), background=2)
    coverage, accuracy = coverage_curve(scores)
    assert len(coverage) == len(accuracy) == 0
    assert threshold_rows(scores, {}, (0.5,))[0].accuracy is None


def test_probes_are_the_same_each_time_and_audible():
    first = probes.make_probes(1600, 8000)
    other_rate = probes.make_probes(1600, 16_000)["unheard voices"]
    again = probes.make_probes(1600, 8000)  # not kept from the first call: the rate differed since
    for voice, twice in zip(first["unheard voices"], other_rate, strict=True):
        assert len(twice) == pytest.approx(2 * len(voice), abs=1)
    assert list(first) == ["noise", "tones", "unheard voices"]
    for kind, sounds in first.items():
        assert len(sounds) == probes.COUNT
        assert len({sound.tobytes() for sound in sounds}) == probes.COUNT
        for one, other in zip(sounds, again[kind], strict=True):
            np.testing.assert_array_equal(one, other)
            assert not is_silent(one)
            assert np.isfinite(one).all()
        if kind != "unheard voices":
            assert {len(sound) for sound in sounds} == {1600}


def test_the_unheard_voices_are_none_of_the_embedded_ones():
    unheard = {clip.tobytes() for clip in probes.make_probes(16, 16_000)["unheard voices"]}
    for speaker in range(3):
        clip = synthetic.draw_clip(0, speaker, 0)
        assert clip.tobytes() not in unheard


def test_noise_falls_by_zero_three_or_six_decibels_per_octave():
    sounds = probes.make_probes(1 << 15, 8000)["noise"]
    for slope in range(3):
        power = np.mean([abs(np.fft.rfft(each)) ** 2 for each in sounds[slope::3]], axis=0)
        octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(6, 13)]
        falls = -10 * np.diff(np.log10(octaves))
        np.testing.assert_allclose(falls, 3.01 * slope, atol=0.7)


def test_probes_are_scored_with_the_temperature():
    model = make_model(make_task())
    found = probe(model, 2.0)
    for probabilities in found.values():
        assert probabilities.shape == (probes.COUNT, len(model.classes))
        np.testing.assert_allclose(probabilities.sum(1), 1)
    sharper = probe(model, 0.5)
    assert all((sharper[kind].max(1) >= found[kind].max(1)).all() for kind in found)
    images = model._replace(frontend=dataclasses.replace(model.frontend, kind="image"))
    assert probe(images, 1.0) == {}
    assert threshold_rows(scored("val", 1, True, 3, 20, 2), found)[0].rejected["noise"] == 0
