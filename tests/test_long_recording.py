"""Recordings read in parts have the same samples as whole ones, wherever a part begins."""

import io
import itertools
import threading

import numpy as np
import pytest
import soundfile

from meljax.data.decode import audio_file, long_recording, resample, sound_source
from meljax.data.decode.audio_file import AudioFile
from meljax.data.decode.long_recording import LongRecording, cut_spans, read_recording
from meljax.features.samples import to_float
from meljax.util.errors import BadFileError

RATE = 16_000


def stereo(seconds=4.0, rate=RATE):
    return np.random.default_rng(1).normal(0, 0.2, (int(rate * seconds), 2)).astype(np.float32)


def encoded(form, subtype, rate, samples=None):
    out = io.BytesIO()
    soundfile.write(
        out, stereo(rate=rate) if samples is None else samples, rate, format=form, subtype=subtype
    )
    return out.getvalue()


def opener(data):
    return lambda: io.BytesIO(data)


@pytest.fixture
def small_blocks(monkeypatch):
    """Makes recordings of a few seconds span many blocks."""
    monkeypatch.setattr(resample, "_BLOCK", 4096)
    monkeypatch.setattr(sound_source, "_PART", 1000)


@pytest.mark.parametrize(
    ("form", "subtype", "seekable"),
    [
        ("WAV", "PCM_16", True),
        ("WAV", "FLOAT", True),
        ("WAV", "IMA_ADPCM", False),
        ("WAV", "MS_ADPCM", False),
        ("W64", "PCM_24", True),
        ("AIFF", "PCM_16", True),
        ("AU", "ULAW", True),
        ("CAF", "PCM_16", True),
        ("FLAC", "PCM_16", True),
        ("FLAC", "PCM_24", True),
        ("OGG", "VORBIS", False),
        ("MP3", "MPEG_LAYER_III", False),
    ],
)
@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
def test_samples_after_a_place_are_those_of_the_whole(small_blocks, form, subtype, seekable, rate):
    file = AudioFile(opener(encoded(form, subtype, rate)), RATE)
    assert file.seekable == seekable
    whole = to_float(file.read())
    for start in (1, 999, 5000, len(whole) // 2, len(whole) - 1):
        np.testing.assert_array_equal(np.concatenate(list(file.blocks(start))), whole[start:])


@pytest.mark.parametrize("part", [77, 1000, 1 << 17])
def test_the_size_of_parts_changes_no_sample(monkeypatch, part):
    data = encoded("FLAC", "PCM_16", 48_000)
    whole = AudioFile(opener(data), RATE).read()
    monkeypatch.setattr(sound_source, "_PART", 2 * part)
    file = AudioFile(opener(data), RATE)
    np.testing.assert_array_equal(file.read(), whole)
    np.testing.assert_array_equal(np.concatenate(list(file.blocks(40_000))), whole[40_000:])


def test_resampling_from_a_place_whose_context_reaches_the_start(monkeypatch):
    """Rates with a common divisor of 1 Hz have blocks as long as their context."""
    signal = np.random.default_rng(0).normal(0, 0.2, 30_000).astype(np.float32)
    monkeypatch.setattr(resample, "_BLOCK", 1)
    for rate, new_rate in ((1001, 1000), (1000, 1001), (3, 1)):
        whole = np.concatenate(list(resample.resample([signal], rate, new_rate)))
        for start in (1, 1024, 2500, 5000, len(whole) - 1):
            first = resample.first_input(start, rate, new_rate)
            parts = np.array_split(signal[first:], 7)
            found = np.concatenate(list(resample.resample(parts, rate, new_rate, start)))
            np.testing.assert_array_equal(found, whole[start:])


def test_spans_are_cut_from_blocks_of_any_length():
    signal = np.arange(1000, dtype=np.float32)
    spans = [(100, 130), (110, 400), (110, 120), (700, 900), (850, 1000)]
    for size, begin in itertools.product((1, 7, 128, 1000), (0, 60, 100)):
        blocks = iter([signal[at : at + size] for at in range(begin, 1000, size)])
        found = list(cut_spans(blocks, begin, spans, to_end=False))
        for (start, stop), part in zip(spans, found, strict=True):
            np.testing.assert_array_equal(part, signal[start:stop])


def test_only_spans_to_the_end_take_all_blocks():
    def blocks():
        yield np.zeros(10, np.float32)
        raise BadFileError("damaged at the end")

    assert len(list(cut_spans(blocks(), 0, [(0, 10)], to_end=False))) == 1
    with pytest.raises(BadFileError):
        list(cut_spans(blocks(), 0, [(0, 10)], to_end=True))


@pytest.mark.parametrize("form", ["WAV", "OGG"])
def test_no_span_and_nested_spans(form, small_blocks):
    data = encoded(form, None, RATE)
    whole = to_float(AudioFile(opener(data), RATE).read())
    file = AudioFile(opener(data), RATE)
    recording = LongRecording(file, 0, len(whole))
    assert list(recording.read_spans([])) == []
    spans = [(0, len(whole)), (10, 20), (10, 50_000), (30_000, 30_001)]
    for (start, stop), found in zip(spans, recording.read_spans(spans), strict=True):
        np.testing.assert_array_equal(found, whole[start:stop])
        assert found.base is None  # a view would keep more in memory


def test_files_that_cannot_be_seeked_are_read_in_a_thread():
    """A signal that arrives in the main thread inside of a decoder's callback would be lost."""
    file = AudioFile(opener(encoded("OGG", None, RATE)), RATE)
    names, blocks = [], file.blocks

    def noted(start=0):
        names.append(threading.current_thread())
        yield from blocks(start)

    file.blocks = noted
    assert len(list(LongRecording(file, 0, file.length()).read_spans([(0, 9), (3, 30)]))) == 2
    assert names[0] is not threading.main_thread()


@pytest.mark.parametrize("form", ["WAV", "OGG"])
def test_the_last_span_comes_after_the_end_was_checked(form, monkeypatch):
    file = AudioFile(opener(encoded(form, None, RATE)), RATE)
    length, blocks = file.length(), file.blocks

    def damaged(start=0):
        yield from blocks(start)
        raise BadFileError("damaged at the end")

    monkeypatch.setattr(file, "blocks", damaged)
    recording = LongRecording(file, 0, length)
    assert len(list(recording.read_spans([(0, 100), (200, length - 1)]))) == 2
    for spans in ([(0, 100), (length - 300, length)], [(0, length), (5, 10)]):
        with pytest.raises(BadFileError):
            list(recording.read_spans(spans))
    with pytest.raises(BadFileError):
        list(recording.read_spans([(0, 100)], to_end=True))


@pytest.fixture
def long_from_a_second(monkeypatch):
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", RATE)


@pytest.mark.parametrize(("form", "seekable"), [("WAV", True), ("OGG", False)])
def test_a_long_recording_is_sliced_like_an_array(long_from_a_second, small_blocks, form, seekable):
    data = encoded(form, None, 44_100)
    whole = to_float(AudioFile(opener(data), RATE).read())
    recording = read_recording(AudioFile(opener(data), RATE), segments=False)
    assert isinstance(recording, LongRecording)
    assert recording.file.seekable == seekable
    assert len(recording) == len(whole)
    part = recording[20_000:50_000][100:]
    assert len(part) == 29_900
    assert len(recording[60_000:99_999_999]) == len(whole) - 60_000
    assert len(recording[50:20]) == 0
    spans = [(0, 10), (5, 3000), (20_000, 29_900)]
    for (start, stop), found in zip(spans, part.read_spans(spans), strict=True):
        np.testing.assert_array_equal(found, whole[20_100 + start : 20_100 + stop])


def test_short_recordings_and_files_for_segments_that_cannot_be_seeked_are_read_whole(
    long_from_a_second,
):
    short = encoded("WAV", None, RATE, stereo(0.9))
    assert isinstance(read_recording(AudioFile(opener(short), RATE), segments=False), np.ndarray)
    ogg = encoded("OGG", None, RATE)
    assert isinstance(read_recording(AudioFile(opener(ogg), RATE), segments=False), LongRecording)
    assert isinstance(read_recording(AudioFile(opener(ogg), RATE), segments=True), np.ndarray)
    wav = encoded("WAV", None, RATE)
    assert isinstance(read_recording(AudioFile(opener(wav), RATE), segments=True), LongRecording)


def test_a_file_of_unknown_length_that_is_too_long_to_read_whole(long_from_a_second, monkeypatch):
    mp3 = encoded("MP3", None, RATE)
    recording = read_recording(AudioFile(opener(mp3), RATE), segments=False)
    assert isinstance(recording, LongRecording)
    assert len(recording) == len(AudioFile(opener(mp3), RATE).read())
    assert AudioFile(opener(mp3), RATE).read_up_to(len(recording) - 1) is None
    assert len(AudioFile(opener(mp3), RATE).read_up_to(len(recording))) == len(recording)
    monkeypatch.setattr(audio_file, "MAX_SAMPLES", RATE)
    with pytest.raises(BadFileError, match="longer than 0 minutes, the maximum"):
        AudioFile(opener(mp3), RATE).read()
