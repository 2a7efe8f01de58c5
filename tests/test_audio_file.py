"""Recordings of every format are decoded to mono at one rate; bad files get a reason."""

import io
import struct

import numpy as np
import pytest
import soundfile

from meljax.data.decode import audio_file
from meljax.data.decode.audio_file import read_audio
from meljax.util.errors import BadFileError

RATE = 16_000


def encode(samples, rate=RATE, form="WAV", subtype="PCM_16"):
    if not soundfile.check_format(form, subtype):
        pytest.skip(f"this libsndfile has no {form} {subtype}")
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def tone(rate=RATE, seconds=1.0, frequency=440.0, amplitude=0.3):
    time = np.arange(int(rate * seconds)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def noise(samples=RATE):
    return np.random.default_rng(0).integers(-9000, 9000, samples).astype(np.int16)


def refusal(data, sample_rate=RATE):
    with pytest.raises(BadFileError) as caught:
        read_audio(data, sample_rate)
    reason = str(caught.value)
    assert "\n" not in reason
    return reason


def error_to_tone(samples):
    """Returns the relative error of the middle part against the tone, for the best gain."""
    middle = samples[2000:-2000].astype(float)
    want = tone()[2000 : 2000 + len(middle)]
    gain = middle @ want / (want @ want)
    return np.linalg.norm(middle - gain * want) / np.linalg.norm(middle)


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "FLAC", "AIFF", "RF64"])
def test_16_bit_mono_at_the_target_rate_is_unchanged(form):
    samples = noise()
    read = read_audio(encode(samples, form=form), RATE)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, samples)


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.03),
        ("AIFF", "PCM_S8", 0.03),
        ("WAV", "PCM_24", 1e-4),
        ("FLAC", "PCM_24", 1e-4),
        ("WAV", "PCM_32", 1e-4),
        ("WAV", "FLOAT", 1e-4),
        ("WAV", "DOUBLE", 1e-4),
        ("AIFF", "FLOAT", 1e-4),
        ("WAV", "ULAW", 0.1),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.2),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_every_format_decodes_to_the_same_tone_at_full_scale(form, subtype, tolerance):
    read = read_audio(encode(tone(), form=form, subtype=subtype), RATE)
    assert abs(len(read) - RATE) <= 2
    assert np.abs(read.astype(int)).max() == 32767
    assert error_to_tone(read) < tolerance


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate):
    read = read_audio(encode(tone(rate), rate), RATE)
    assert abs(len(read) - RATE) <= 1
    assert error_to_tone(read) < 1e-3


def test_frequencies_above_the_new_nyquist_are_filtered_out():
    mixed = tone(48_000, frequency=440) + tone(48_000, frequency=15_000)
    read = read_audio(encode(mixed, 48_000), RATE) / 32767
    power = np.abs(np.fft.rfft(read[1000:-1000] * np.hanning(len(read) - 2000))) ** 2
    hertz = np.fft.rfftfreq(len(read) - 2000, 1 / RATE)
    assert power[hertz > 600].sum() < 1e-6 * power.sum()


def test_channels_are_averaged():
    left, right = noise(), noise()[::-1]
    read = read_audio(encode(np.stack([left, right], axis=1)), RATE)
    mean = (left.astype(float) + right) / 2
    np.testing.assert_allclose(read, mean / np.abs(mean).max() * 32767, atol=0.51)
    six = read_audio(encode(np.stack([left] * 6, axis=1)), RATE)
    np.testing.assert_allclose(six, left / np.abs(left).max() * 32767, atol=0.51)


@pytest.mark.parametrize("gain", [1e-42, 1e-6, 1.0, 50.0, 3e38])
def test_float_recordings_of_any_gain_use_all_16_bits(gain):
    quiet = (tone(amplitude=1.0) * np.float32(gain)).astype(np.float32)
    read = read_audio(encode(np.stack([quiet, quiet], axis=1), subtype="FLOAT"), RATE)
    assert np.abs(read.astype(int)).max() == 32767


@pytest.mark.parametrize(("subtype", "rate"), [("PCM_16", RATE), ("FLOAT", RATE), ("FLOAT", 8_000)])
def test_silence_stays_zero(subtype, rate):
    read = read_audio(encode(np.zeros(800), rate, subtype=subtype), RATE)
    assert len(read) == 800 * RATE // rate
    assert not read.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(value):
    samples = tone()
    samples[77] = value
    assert refusal(encode(samples, subtype="FLOAT")) == "not finite"
    assert refusal(encode(np.stack([samples, -samples], axis=1), subtype="FLOAT")) == "not finite"


@pytest.mark.parametrize(
    "data", [b"hello" * 99, b"\0" * 999, b"RIFF", b"OggS", b"\x89PNG\r\n\x1a\n"]
)
def test_other_files_are_refused(data):
    assert refusal(data).startswith(("not a recording that can be read (", "truncated"))


def test_the_reason_comes_from_libsndfile():
    assert refusal(b"hello" * 99) == "not a recording that can be read (Format not recognised)"


def test_empty_files_and_recordings_without_samples_are_refused():
    assert refusal(b"") == "empty file"
    assert refusal(encode(np.zeros(0))) == "no samples"
    assert refusal(encode(tone(192_000)[:2], 192_000)) == "no samples"


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAVEX", "PCM_24"),
        ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_recording_is_refused(form, subtype, part):
    data = encode(noise(4 * RATE), form=form, subtype=subtype)
    reason = refusal(data[: int(len(data) * part)])
    assert reason == "truncated" or reason.startswith("truncated or damaged (")


def with_chunk(data, size, before, order):
    """Returns a WAV or AIFF file with another chunk of `size` bytes, padded to an even number."""
    at = data.index(before)
    chunk = b"NAME" + struct.pack(order + "I", size) + b"x" * size + b"\0" * (size % 2)
    whole = struct.pack(order + "I", len(data) + len(chunk) - 8)
    return data[:4] + whole + data[8:at] + chunk + data[at:]


@pytest.mark.parametrize("size", [0, 1, 4, 7])
@pytest.mark.parametrize(
    ("form", "before", "order"), [("WAV", b"data", "<"), ("AIFF", b"SSND", ">")]
)
def test_chunks_of_any_size_may_come_before_the_samples(form, before, order, size):
    data = with_chunk(encode(noise(), form=form), size, before, order)
    np.testing.assert_array_equal(read_audio(data, RATE), noise())
    assert refusal(data[:-400]) == "truncated"


@pytest.mark.parametrize("form", ["WAV", "AIFF"])
def test_a_recording_may_lack_a_few_milliseconds_and_no_more(form):
    data = encode(noise(), form=form)
    assert data.endswith(noise().astype("<i2" if form == "WAV" else ">i2").tobytes())
    np.testing.assert_array_equal(read_audio(data[:-64], RATE), noise()[:-32])
    assert refusal(data[:-66]) == "truncated"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 2 * RATE + 44])
def test_a_wav_with_an_unknown_length_in_its_header_is_read(size):
    data = bytearray(encode(noise()))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    np.testing.assert_array_equal(read_audio(bytes(data), RATE), noise())


@pytest.mark.parametrize("frames", [0, 2**36 - 1, 10**9])
def test_a_flac_header_with_an_absurd_or_unknown_length_allocates_nothing(frames):
    data = bytearray(encode(noise(), form="FLAC"))
    data[21] = data[21] & 0xF0 | frames >> 32
    data[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
    words = "minutes long according to its header" if frames else "its header gives no length"
    assert words in refusal(bytes(data))


def test_resampling_that_would_fill_the_memory_is_refused():
    reason = refusal(encode(noise(), rate=1), sample_rate=48_000)
    assert reason.startswith("267 minutes long according to its header; at most 93 minutes")


def test_the_limit_of_a_length_is_over_all_channels(monkeypatch):
    monkeypatch.setattr(audio_file, "MAX_SAMPLES", 3 * 1000)
    data = {n: encode(np.repeat(noise(n)[:, None], 3, axis=1)) for n in (1000, 1001)}
    assert len(read_audio(data[1000], RATE)) == 1000
    assert "can be read; cut it into parts" in refusal(data[1001])


def headless_mp3(bitrate_mode):
    """Returns 1 s of silence and 1 s of tone, without the frame that gives the length."""
    out = io.BytesIO()
    samples = tone(seconds=2) * np.repeat([0, 1], RATE) + noise(2 * RATE) * 1e-6
    form = {"format": "MP3", "bitrate_mode": bitrate_mode, "compression_level": 0.5}
    with soundfile.SoundFile(out, "w", RATE, 1, **form) as file:
        file.write(samples)
    data = out.getvalue()
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    assert tag > 0
    return data[data.index(data[:2], tag) :]


def test_an_mp3_without_a_length_is_read_to_its_end():
    data = headless_mp3("CONSTANT")
    for part in (data, data[: len(data) * 3 // 4]):
        assert abs(len(read_audio(part, RATE)) - 2 * RATE * len(part) / len(data)) < 0.2 * RATE


def test_an_mp3_that_libsndfile_would_cut_short_is_refused():
    assert "gives no length" in refusal(headless_mp3("VARIABLE"))


def test_an_ogg_file_may_end_in_an_empty_page():
    data = encode(tone(), form="OGG", subtype="VORBIS")
    empty = b"OggS" + bytes(23)
    np.testing.assert_array_equal(read_audio(data + empty, RATE), read_audio(data, RATE))
    assert refusal(data + empty[:20]) == "truncated"


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
)
def test_damaged_files_raise_only_bad_file_error(form, subtype):
    rng = np.random.default_rng(0)
    data = np.frombuffer(encode(noise(2000), form=form, subtype=subtype), np.uint8)
    refused = 0
    for _ in range(60):
        damaged = data.copy()
        damaged[rng.integers(len(data), size=4)] = rng.integers(256, size=4)
        damaged[rng.integers(60, size=3)] = rng.integers(256, size=3)
        try:
            read_audio(damaged.tobytes(), RATE)
        except BadFileError:
            refused += 1
    assert refused > 5
