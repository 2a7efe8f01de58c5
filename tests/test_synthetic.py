"""The embedded voices are reproducible and follow the traits of their speakers."""

import os
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import lfilter

from meljax.data import synthetic
from meljax.data.synthetic import (
    SAMPLE_RATE,
    cache_file,
    draw_clip,
    draw_speaker,
    glottal_flow,
    load,
    plan,
    synthesize,
    vocal_tract,
)
from meljax.util.files import TEMPORARY_PREFIX

SMALL = {"speakers": 3, "clips": 8}


@pytest.fixture(scope="module")
def clips():
    """Two clips of each speaker of the default set."""
    return [[draw_clip(0, speaker, clip) for clip in range(2)] for speaker in range(24)]


@pytest.fixture(scope="module")
def small():
    return synthesize(0, **SMALL)


def content(voices):
    return voices.names, voices.labels, [clip.tobytes() for clip in voices.clips]


def never(*_, **__):
    raise AssertionError("the set was made again")


def test_the_seed_determines_every_byte(small):
    assert content(small) == content(synthesize(0, **SMALL))
    assert not set(content(small)[2]) & set(content(synthesize(1, **SMALL))[2])


def test_a_clip_does_not_depend_on_the_size_of_the_set(small):
    names, _, made = content(synthesize(0, speakers=4, clips=14))
    larger = dict(zip(names, made, strict=True))
    for name, clip in zip(small.names, small.clips, strict=True):
        assert larger[name] == clip.tobytes()


def test_the_default_set_shares_2469_clips_evenly_among_24_speakers():
    counts = Counter(speaker for speaker, _ in plan(24, 2469))
    assert [counts[speaker] for speaker in range(24)] == [103] * 21 + [102] * 3


def test_names_are_unique_sorted_and_start_with_the_label(small):
    assert list(small.names) == sorted(set(small.names))
    assert small.names[:2] == ("voice01/voice01_001", "voice01/voice01_002")
    assert Counter(small.labels) == {"voice01": 3, "voice02": 3, "voice03": 2}
    for name, label in zip(small.names, small.labels, strict=True):
        assert name.startswith(f"{label}/{label}_")


@pytest.mark.parametrize(("speakers", "count"), [(0, 5), (3, 2), (100, 500), (1, 1000)])
def test_clips_that_cannot_be_shared_out_or_named_are_refused(speakers, count):
    with pytest.raises(ValueError, match="cannot share"):
        plan(speakers, count)


def test_clips_are_16_bit_and_about_one_and_a_half_seconds_long(clips):
    seconds = [len(clip) / SAMPLE_RATE for of_speaker in clips for clip in of_speaker]
    assert clips[0][0].dtype == np.int16
    assert clips[0][0].ndim == 1
    assert min(seconds) >= 1.29
    assert max(seconds) <= 1.7
    assert np.std(seconds) > 0.05


def test_no_clip_is_clipped_or_silent(clips):
    for clip in (clip / 32768 for of_speaker in clips for clip in of_speaker):
        assert 0.09 < np.abs(clip).max() < 0.9
        assert np.sqrt(np.mean(clip**2)) > 0.003
        assert abs(clip.mean()) < 0.01


def test_progress_counts_every_clip():
    seen = []
    synthesize(0, **SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(1, 9)]


def test_speakers_differ_and_overlap_in_pitch():
    speakers = [draw_speaker(0, index) for index in range(24)]
    assert len(set(speakers)) == 24
    pitches = sorted(speaker.median_f0 for speaker in speakers)
    assert 70 < pitches[0] < 120
    assert 180 < pitches[-1] < 300
    # From clip to clip a pitch moves by 1.5 semitones (9 %), more than to the next speaker.
    assert np.median([high / low for low, high in pairwise(pitches)]) < 1.06


def measured_f0(clip):
    """Returns the median over loud frames of the pitch with the highest autocorrelation, Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(clip.astype(float), 1024)[::512]
    loud = frames[frames.std(axis=1) > frames.std()]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(loud * np.hanning(1024), 2048)) ** 2)
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 60)
    return np.median(SAMPLE_RATE / lags[correlation[:, lags].argmax(axis=1)])


def test_measured_pitch_follows_the_speaker(clips):
    expected = [draw_speaker(0, index).median_f0 for index in range(24)]
    measured = [np.mean([measured_f0(clip) for clip in of_speaker]) for of_speaker in clips]
    assert np.median(np.abs(np.log2(np.divide(measured, expected)))) < 2 / 12
    assert np.corrcoef(np.log(measured), np.log(expected))[0, 1] > 0.7


def whispered_envelope(monkeypatch, tract, octaves):
    """Returns the mean spectrum of whispered clips in dB, at octaves from 1 kHz; tract in cm."""
    whisper = draw_speaker(0, 0)._replace(tract=tract, breath=40, hissing=0)
    monkeypatch.setattr(synthetic, "draw_speaker", lambda seed, index: whisper)
    spectra = [np.abs(np.fft.rfft(draw_clip(0, 0, clip), 1 << 15)) for clip in range(12)]
    level = 20 * np.mean(np.log10(np.maximum(spectra, 1)), axis=0)
    smooth = np.convolve(level, np.full(200, 1 / 200), "same")
    return np.interp(1000 * 2**octaves, np.fft.rfftfreq(1 << 15, 1 / SAMPLE_RATE), smooth)


def test_a_longer_vocal_tract_lowers_the_formants_in_proportion(monkeypatch):
    octaves = np.arange(-1, 2.3, 0.01)
    shifts = np.arange(-0.6, 0.6, 0.02)
    with monkeypatch.context() as patch:
        short = whispered_envelope(patch, 14, octaves)
    with monkeypatch.context() as patch:
        long = whispered_envelope(patch, 18, octaves - shifts[:, None])
    match = [np.corrcoef(short, shifted)[0, 1] for shifted in long]
    assert shifts[np.argmax(match)] == pytest.approx(np.log2(18 / 14), abs=0.1)


def test_with_constant_formants_the_vocal_tract_is_a_cascade_of_resonators():
    source = np.random.default_rng(0).standard_normal(5000)
    expected = source
    for formant in (500, 1500):
        pole = np.exp((-np.pi * 50 * (1 + formant**2 / 6e6) + 2j * np.pi * formant) / SAMPLE_RATE)
        poles = [1, -2 * pole.real, abs(pole) ** 2]
        expected = lfilter([sum(poles)], poles, expected)
    filtered = vocal_tract(source, np.tile([500.0, 1500.0], (21, 1)))
    assert np.std(filtered - expected) < 0.005 * np.std(expected)


def test_the_glottis_is_open_for_its_quotient_and_closes_faster_than_it_opens():
    flow = glottal_flow(np.arange(3000) / 1000, 0.6)
    np.testing.assert_allclose(flow[:1000], flow[2000:], atol=1e-9)
    assert np.mean(flow > 1e-9) == pytest.approx(0.6, abs=0.01)
    assert flow[:1000].argmax() == 400
    assert flow.max() == pytest.approx(1)


def test_a_cached_set_equals_the_synthesized_one(tmp_path, small, monkeypatch):
    folder = tmp_path / "new" / "folder"
    assert content(load(folder, **SMALL)) == content(small)
    assert list((folder / "decoded").iterdir()) == [cache_file(folder, 0, **SMALL)]
    monkeypatch.setattr(synthetic, "synthesize", never)
    again = load(folder, **SMALL)
    assert content(again) == content(small)
    assert {clip.dtype for clip in again.clips} == {np.dtype(np.int16)}


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"", lambda _: b"no cache"])
def test_a_damaged_cache_file_is_replaced(tmp_path, small, damage, monkeypatch):
    load(tmp_path, **SMALL)
    path = cache_file(tmp_path, 0, **SMALL)
    path.write_bytes(damage(path.read_bytes()))
    assert content(load(tmp_path, **SMALL)) == content(small)
    monkeypatch.setattr(synthetic, "synthesize", never)
    assert content(load(tmp_path, **SMALL)) == content(small)


def test_progress_is_shown_only_while_the_set_is_made(tmp_path, capsys):
    load(tmp_path, **SMALL)
    assert capsys.readouterr().out == "making the embedded voices, once\n"
    load(tmp_path, **SMALL)
    assert capsys.readouterr().out == ""


def test_an_interrupted_write_leaves_nothing(tmp_path, small, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, **SMALL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_half_written_files_of_killed_processes_are_removed(tmp_path, small):
    file = cache_file(tmp_path, 0, **SMALL)
    file.parent.mkdir()
    stale = file.parent / f"{TEMPORARY_PREFIX}1-abc"
    stale.write_bytes(b"x")
    os.utime(stale, (1, 1))
    load(tmp_path, **SMALL)
    assert list(file.parent.iterdir()) == [file]


def test_without_a_writable_folder_the_set_is_still_made(tmp_path, small):
    (tmp_path / "file").write_text("in the way")
    assert content(load(tmp_path / "file" / "cache", **SMALL)) == content(small)
    assert content(load(tmp_path / "file", **SMALL)) == content(small)


def test_every_argument_has_its_own_cache_file(tmp_path):
    keys = [(0, 3, 8), (1, 3, 8), (0, 2, 8), (0, 3, 9)]
    assert len({cache_file(tmp_path, *key) for key in keys}) == 4
    assert cache_file(tmp_path, *keys[0]) == cache_file(tmp_path, *keys[0])
