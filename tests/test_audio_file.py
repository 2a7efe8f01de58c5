"""Recordings of every format are decoded to mono at one rate; bad files get a reason."""

import contextlib
import io
import struct
import sys

import numpy as np
import pytest
import soundfile
import soxr

from meljax.data.decode import audio_file, decoder, mp3_frames, sound_source
from meljax.data.decode.audio_file import AudioFile
from meljax.features.samples import is_silent, to_float
from meljax.util.errors import BadFileError

RATE = 16_000


def open_audio(data, sample_rate=RATE):
    return AudioFile(lambda: io.BytesIO(data), sample_rate)


def read_audio(data, sample_rate=RATE):
    return open_audio(data, sample_rate).read()


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
def test_every_format_decodes_to_the_same_tone(form, subtype, tolerance):
    read = to_float(read_audio(encode(tone(), form=form, subtype=subtype)))
    assert abs(len(read) - RATE) <= 2
    assert np.abs(read[2000:-2000]).max() == pytest.approx(0.3, rel=0.2)
    assert error_to_tone(read) < tolerance


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate):
    read = read_audio(encode(tone(rate), rate), RATE)
    assert abs(len(read) - RATE) <= 1
    assert error_to_tone(read) < 1e-3


def test_frequencies_above_the_new_nyquist_are_filtered_out():
    mixed = tone(48_000, frequency=440) + tone(48_000, frequency=15_000)
    read = read_audio(encode(mixed, 48_000), RATE)
    power = np.abs(np.fft.rfft(read[1000:-1000] * np.hanning(len(read) - 2000))) ** 2
    hertz = np.fft.rfftfreq(len(read) - 2000, 1 / RATE)
    assert power[hertz > 600].sum() < 1e-6 * power.sum()


def test_channels_are_averaged():
    left, right = noise(), np.roll(noise(), 5)
    read = read_audio(encode(np.stack([left, right], axis=1)))
    np.testing.assert_array_equal(to_float(read), (left.astype(float) + right) / 2 / 32768)
    six = read_audio(encode(np.stack([left] * 6, axis=1)))
    assert six.dtype == np.int16
    np.testing.assert_array_equal(six, left)


@pytest.mark.parametrize("gain", [1e-30, 1e-6, 1.0, 50.0, 2**31])
def test_float_recordings_keep_their_values(gain):
    samples = (tone(amplitude=1.0) * np.float32(gain)).astype(np.float32)
    np.testing.assert_array_equal(read_audio(encode(samples, subtype="FLOAT")), samples)


@pytest.mark.parametrize(
    ("form", "subtype", "dtype"),
    [
        ("WAV", "PCM_U8", np.int16),
        ("WAV", "PCM_24", np.float32),
        ("FLAC", "PCM_24", np.float32),
        ("WAV", "FLOAT", np.float32),
    ],
)
def test_samples_have_the_narrowest_type_that_holds_them(form, subtype, dtype):
    samples = tone() * 1e-3
    data = encode(samples, form=form, subtype=subtype)
    read = read_audio(data)
    assert read.dtype == dtype
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_array_equal(to_float(read), expected)


def test_samples_depend_on_their_place_alone():
    data = [encode(np.append(tone(44_100, 4), click), 44_100) for click in (0.0, 0.99)]
    one, other = map(read_audio, data)
    np.testing.assert_array_equal(one[: 3 * RATE], other[: 3 * RATE])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 44_101, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_blocks_of_any_size_give_the_same_samples(rate, channels, monkeypatch):
    samples = np.random.default_rng(0).standard_normal((rate * 3 + 17, channels)) * 0.1
    data = encode(samples, rate, subtype="PCM_24")
    whole = read_audio(data)
    assert open_audio(data).length() == len(whole)
    for size in (1000, 4096 + 1, 1 << 20):
        monkeypatch.setattr(sound_source, "_PART", size)
        blocks = list(open_audio(data).blocks())
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
    at_once = soxr.resample(to_float(samples.mean(1).astype(np.float32)), rate, RATE, quality="HQ")
    assert abs(len(at_once) - len(whole)) <= 1
    shorter = min(len(at_once), len(whole)) - 2
    np.testing.assert_allclose(to_float(whole)[:shorter], at_once[:shorter], atol=2e-6)


def test_the_channel_with_sound_is_taken_if_channels_cancel():
    samples = noise()
    opposite = open_audio(encode(np.stack([samples, -samples], axis=1)))
    np.testing.assert_array_equal(opposite.read(), samples)
    assert opposite.facts.channel == 0
    one_of_16 = np.zeros((len(samples), 16), np.int16)
    one_of_16[:, 7] = samples
    file = open_audio(encode(one_of_16))
    np.testing.assert_array_equal(file.read(), samples)
    assert file.facts.channel == 7
    half_silent = np.stack([samples, 0 * samples], axis=1)
    file = open_audio(encode(half_silent))
    assert file.facts.channel is None
    np.testing.assert_array_equal(to_float(file.read()), samples / 2 / 32768)


def test_the_first_minute_decides_the_channel():
    first, later = np.repeat(tone(8000, 61)[:, None], 2, axis=1), tone(8000, 5)
    data = encode(np.concatenate([first, np.stack([later, -later], axis=1)]), 8000)
    file = open_audio(data, 8000)
    assert file.facts.channel is None
    assert is_silent(file.read()[-8000:])


def test_clipped_recordings_are_told():
    for gain, clipped in ((0.9, False), (1.0, False), (1.5, True)):
        samples = np.clip(tone(amplitude=gain), -1, 1)
        file = open_audio(encode(samples))
        file.read()
        assert file.facts.clipped == clipped


def test_silence_is_within_one_step_of_the_mean():
    rng = np.random.default_rng(0)
    for offset in (0, 300, -32_000):
        flat = (offset + rng.integers(0, 2, 1000)).astype(np.int16)
        assert is_silent(flat)
        assert is_silent(to_float(flat))
        flat[500] += 3
        assert not is_silent(flat)
        assert not is_silent(to_float(flat))
    assert not is_silent(np.array([0, 2], np.int16) * 2)


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


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("value", [-1e38, 1e10])
def test_samples_far_above_full_scale_are_refused(value, rate):
    """Their powers overflow: the spectrogram would be that of silence."""
    samples = tone()
    samples[77] = value
    shown = f"samples up to {abs(value):.0e}; full scale is 1"
    assert refusal(encode(samples, rate, subtype="FLOAT")) == shown
    with pytest.raises(BadFileError, match="full scale is 1"):
        decoder.prepare_samples(samples[:, None], rate, RATE)


@pytest.mark.parametrize(
    "data", [b"hello" * 99, b"\0" * 999, b"RIFF", b"OggS", b"\x89PNG\r\n\x1a\n"]
)
def test_other_files_are_refused(data):
    refusal(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello" * 99, "text"),
        ("Grüße\n".encode(), "text"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"  <html lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 99, "an image (PNG), not a recording"),
        (b"\xff\xd8\xff\xe0" + b"x" * 99, "an image (JPEG), not a recording"),
        (b"PK\x03\x04" + b"x" * 99, "a ZIP archive"),
        (b"%PDF-1.4", "a PDF document"),
        (b"\0" * 999, "not a recording that can be read"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
    ],
)
def test_other_files_are_named_as_what_they_are(data, words):
    assert words in refusal(data)


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
    assert refusal(data[: int(len(data) * part)]).startswith("truncated")


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


@pytest.mark.parametrize("form", ["WAV", "RF64", "AIFF", "CAF", "AU", "W64", "FLAC"])
def test_a_header_with_a_wrong_length_never_gives_a_part(form):
    """Whatever number replaces the length in the header, all samples are read, or none."""
    data, samples = encode(noise(), form=form), noise()
    read = 0
    for at in range(4, 90 if form != "W64" else 140):
        if form == "AIFF" and 43 <= at < 50:  # where the samples start
            continue
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x10\0"):
            changed = data[:at] + value + data[at + 4 :]
            try:
                found = read_audio(changed)
            except BadFileError:
                continue
            if open_audio(changed).facts[:2] == (RATE, 1):
                assert len(found) >= len(samples) - 32, (at, value)
                read += len(found) == len(samples)
    assert read > 5


def test_a_flac_from_a_pipe_is_read_to_its_end():
    data = bytearray(encode(noise(20_001), form="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    np.testing.assert_array_equal(read_audio(bytes(data)), noise(20_001))
    assert refusal(bytes(data[:-100])) == "truncated"
    np.testing.assert_array_equal(read_audio(bytes(data) + b"TAG" + bytes(125)), noise(20_001))


@pytest.mark.parametrize("frames", [2**36 - 1, 10**9, 100])
def test_a_flac_header_with_a_wrong_length_is_refused(frames):
    data = bytearray(encode(noise(), form="FLAC"))
    data[21] = data[21] & 0xF0 | frames >> 32
    data[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
    assert refusal(bytes(data)).startswith(("truncated", "its header says 100 samples"))


def test_an_absurd_sample_rate_is_refused():
    assert "1 Hz cannot be right" in refusal(encode(noise(), rate=1), sample_rate=48_000)
    # Resampling multiplies the memory that a file takes.
    data = encode(noise(), rate=160, form="AIFF")
    assert "160 Hz cannot be right" in refusal(data, sample_rate=16_000)
    assert len(read_audio(data, 5_120)) == 32 * len(noise())


def test_a_caf_with_damaged_lengths_of_packets_is_refused(capfd):
    data = encode(noise(60_000), form="CAF", subtype="ALAC_16")
    np.testing.assert_array_equal(read_audio(data), noise(60_000))
    start = data.index(b"pakt") + 12
    for place, values in ((start + 7, b"\xff"), (start + 24, b"\xff" * 6)):
        damaged = data[:place] + values + data[place + len(values) :]
        assert refusal(damaged) == f"damaged at byte {start - 12:,}"
    assert capfd.readouterr().out == ""


def test_what_libraries_print_about_damage_is_not_shown(capfd):
    data = bytearray(encode(tone(), form="MP3", subtype="MPEG_LAYER_III"))
    rng = np.random.default_rng(0)
    for place in rng.integers(200, len(data), 40):
        data[place] ^= 1 << rng.integers(0, 8)
    with contextlib.suppress(BadFileError):
        read_audio(bytes(data))
    print("shown", file=sys.stderr)
    assert capfd.readouterr().err == "shown\n"


def test_a_recording_that_does_not_fit_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(audio_file, "MAX_SAMPLES", 1000)
    assert len(read_audio(encode(noise(1000)))) == 1000
    assert "the maximum for one recording in memory" in refusal(encode(noise(1001)))
    assert "the maximum for one recording in memory" in refusal(encode(tone(8000, 0.1), 8000))


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


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_length_is_read_to_its_end(mode):
    data = headless_mp3(mode)
    read = to_float(read_audio(data))
    assert abs(len(read) - 2 * RATE) < 0.2 * RATE
    assert np.abs(read[-RATE // 2 : -RATE // 4]).max() > 0.2
    if mode == "CONSTANT":
        assert abs(len(read_audio(data[: len(data) * 3 // 4])) - 1.5 * RATE) < 0.2 * RATE


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"ID3\4\0\0\0\0\0\x0a" + bytes(10)])
def test_tags_of_an_mp3_are_passed_over(tag):
    data = encode(tone(), form="MP3", subtype="MPEG_LAYER_III")
    tagged = tag + data if tag.startswith(b"ID3") else data + tag
    np.testing.assert_array_equal(read_audio(tagged), read_audio(data))


@pytest.mark.parametrize("missing", [2, 4])
def test_an_mp3_that_lacks_some_of_its_frames_is_refused(missing):
    data = encode(tone(seconds=3), form="MP3", subtype="MPEG_LAYER_III")
    starts = [0]
    while starts[-1] < len(data):
        head = int.from_bytes(data[starts[-1] :][:4], "big")
        starts.append(starts[-1] + mp3_frames.frame_length(head))
    assert starts[-1] == len(data)
    assert refusal(data[: starts[-1 - missing]]) == "truncated"


def test_an_mp3_with_other_bytes_between_its_frames_is_refused():
    data = encode(tone(seconds=3), form="MP3", subtype="MPEG_LAYER_III")
    middle = len(data) // 2
    assert "damaged at byte" in refusal(data[:middle] + b"\x55" * 5000 + data[middle:])


def test_several_ogg_streams_in_a_file_are_refused():
    data = encode(tone(), form="OGG", subtype="VORBIS")
    assert "several streams" in refusal(data + data)


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
