"""What can be looked at and listened to on a run's page, and how far its confidence holds."""

import dataclasses
import io

import jax
import numpy as np
import pytest
import soundfile
from samples import Page, make_results, scored

from meljax import config, models, runs, summary
from meljax.pages import figures, mistakes
from meljax.pages import run as run_page

RNG = np.random.default_rng(0)


def sound(seconds: float, rate: int = 16_000):
    return RNG.integers(-(2**15), 2**15, int(seconds * rate)).astype(np.int16)


def calibrated(side, temperature, items=40, wrong=9):
    return dataclasses.replace(
        scored(side, 4, True, 4, items, wrong), temperature=float(temperature)
    )


def test_the_sound_of_a_mistake_lies_beside_the_page_sample_by_sample(tmp_path):
    heard = sound(0.3)
    results = make_results(sound=heard)
    seen = Page(run_page.write_report(tmp_path, results, tmp_path).read_text())
    assert seen.sounds == ["figures/mistake_01.wav", "figures/mistake_02.wav"]
    assert not seen.open
    for name in seen.sounds:
        read, rate = soundfile.read(tmp_path / name, dtype="int16")
        np.testing.assert_array_equal(read, heard)
        assert rate == 16_000
        assert soundfile.info(tmp_path / name).subtype == "PCM_16"
    run_page.write_report(tmp_path, make_results(mistakes=1), tmp_path)
    assert not list((tmp_path / "figures").glob("*.wav"))
    assert len(list((tmp_path / "figures").glob("mistake_*"))) == 2


def test_sounds_are_loaded_only_when_they_are_played():
    text = run_page.page(make_results(sound=sound(0.1)), {})
    assert text.count('<audio controls preload="none"') == 2
    assert "Sound: the middle" not in text
    assert "<audio" not in run_page.page(make_results(), {})


def test_of_a_long_sound_the_middle_is_taken_and_the_caption_says_so():
    heard = sound(50, rate=8000)
    read, rate = soundfile.read(io.BytesIO(mistakes.wav(heard, 8000)), dtype="int16")
    assert rate == 8000
    np.testing.assert_array_equal(read, heard[80_000 : 80_000 + 240_000])
    results = make_results(sound=heard, settings={"mel.sample_rate": 8000})
    assert "Sound: the middle 30 s of 50 s." in run_page.page(results, {})


def test_evidence_is_colour_upon_grey():
    picture = np.full((4, 6, 3), 0.5, np.float32)
    warmth = np.zeros((4, 6), np.float32)
    warmth[:, 3:] = 1
    drawn = figures.overlay(picture, warmth)
    assert drawn.shape == (4, 6, 3)
    assert np.ptp(drawn[:, :3], axis=-1).max() < 1e-6
    assert (drawn[:, 3:, 0] - drawn[:, 3:, 2]).min() > 0.3
    assert 0 <= drawn.min() <= drawn.max() <= 1


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        ("cnn", (128, 129), "8 × 8 values for the picture’s 129 × 128 pixels"),
        ("resnet18", (128, 129), "5 × 4 values for the picture’s 129 × 128 pixels"),
        ("cnn", (6, 8), "1 × 1 values for the picture’s 8 × 6 pixels"),
    ],
)
def test_the_page_says_how_coarse_the_evidence_is(network, shape, words):
    results = make_results(settings={"model.name": network})
    picture = np.zeros((*shape, 1), np.float32)
    wrong = [
        dataclasses.replace(each, picture=picture, evidence=picture[..., 0])
        for each in results.mistakes
    ]
    assert words in Page(run_page.page(dataclasses.replace(results, mistakes=wrong), {})).shown


@pytest.mark.parametrize("network", ["cnn", "resnet18"])
def test_the_last_maps_have_as_many_values_as_the_page_says(network):
    model = models.build(config.ModelConfig(name=network, width=4), 3)
    for pixels in (20, 64, 100):
        image = jax.ShapeDtypeStruct((1, pixels, 40, 1), np.float32)
        weight = jax.ShapeDtypeStruct((1,), np.float32)

        def features(image, weight):
            variables = model.init(jax.random.key(0), image, weight, train=False)
            names = ["intermediates"]
            return model.apply(variables, image, weight, train=False, mutable=names)[1]

        (maps,) = jax.eval_shape(features, image, weight)["intermediates"]["features"]
        assert maps.shape[1] == mistakes._VALUES[network](pixels)


def test_calibration_is_told_before_and_after_and_where_it_was_fitted():
    sides = [calibrated("val", 0.5), calibrated("test", 0.5, items=24)]
    results = make_results(scores=[scored("val", 4, False, 4, 40, 9), *sides])
    shown = Page(run_page.page(results, {})).shown
    part = shown[shown.index("Calibration") : shown.index("Confusion matrix")]
    assert "a temperature of 0.50" in part
    assert "Below 1" in part
    for side, words in zip(sides, ("fitted on these files", "not fitted on"), strict=True):
        assert words in part
        facts = runs.calibration_facts(side)
        for when in ("before", "after"):
            assert f"{facts[when]['loss']:.3f}" in part
            assert f"{facts[when]['expected_calibration_error']:.1%}" in part
        assert facts["before"] != facts["after"]


def test_without_the_best_weights_there_is_nothing_to_calibrate(tmp_path):
    results = make_results(scores=[scored("val", 4, False, 4, 20, 2)])
    text = run_page.write_report(tmp_path, results, tmp_path).read_text()
    assert "Calibration" not in text
    assert not (tmp_path / "figures" / "calibration.png").exists()
    assert "calibration" not in summary.text(results)


def test_the_summary_tells_the_calibration_in_a_line():
    best = calibrated("val", 2)
    results = make_results(scores=[scored("val", 4, False, 4, 40, 9), best])
    facts = runs.calibration_facts(best)
    errors = [f"{facts[w]['expected_calibration_error']:.1%}" for w in ("before", "after")]
    losses = [f"{facts[w]['loss']:.3f}" for w in ("before", "after")]
    assert summary.text(results).splitlines()[-1] == (
        f"calibration (best epoch): temperature 2.00; loss {losses[0]} without it, {losses[1]} "
        f"with it; calibration error {errors[0]} without, {errors[1]} with"
    )


def test_every_bin_that_holds_files_is_drawn_at_its_own_place():
    best = calibrated("val", 0.4)
    bins = figures.reliability(run_page._reliability(best)).axes[0].collections
    for dots, probabilities in zip(bins, (best.raw_probabilities, best.probabilities), strict=True):
        x, y = dots.get_offsets().T
        confidence = probabilities.max(-1)
        places = np.minimum((confidence * 15).astype(int), 14)
        held = np.unique(places)
        np.testing.assert_allclose(x, [confidence[places == i].mean() for i in held])
        np.testing.assert_allclose(y, [best.right[places == i].mean() for i in held])
