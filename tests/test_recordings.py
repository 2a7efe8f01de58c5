"""What is told about recordings: rates, channels, clipping and silence; other formats."""

import io
import shutil
import sys

import numpy as np
import pytest
import soundfile
from conftest import small_config, tone

from meljax.data import recordings as recordings_module
from meljax.data.dataset import load
from meljax.data.decode import av_source
from meljax.data.decode.audio_file import AudioFacts, AudioFile
from meljax.features.samples import to_float
from meljax.util.errors import BadFileError, UserError

RATE = 8000


@pytest.fixture
def voices(tmp_path):
    """Writes recordings of two voices; returns their folder."""

    def write(name, samples, rate=RATE, **form):
        path = tmp_path / "voices" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, **form)

    for voice, pitch in (("low", 200), ("high", 900)):
        for i in range(4):
            write(f"{voice}/{i}.wav", tone(pitch, 0.4, i))
    write.folder = tmp_path / "voices"
    return write


def read(voices, tmp_path, **keys):
    return load(small_config(data__path=str(voices.folder), **keys), tmp_path / "cache")


@pytest.mark.parametrize(
    ("rate", "new_rate", "line"),
    [
        (
            384_000,
            16_000,
            "2 recordings: 384 kHz → 16 kHz: everything above 8 kHz is lost; "
            "mel.sample_rate=384000 keeps it",
        ),
        (8000, 16_000, "1 recording: 8 kHz → 16 kHz: there is nothing above 4 kHz"),
        (
            44_100,
            22_050,
            "1 recording: 44.1 kHz → 22.05 kHz: everything above 11.025 kHz is lost; "
            "mel.sample_rate=44100 keeps it",
        ),
    ],
)
def test_resampling_says_what_is_lost(rate, new_rate, line):
    assert recordings_module.resampling(rate, new_rate, int(line[0])) == line


def test_channels_and_clipping_are_told_with_names():
    facts = {
        "a.wav": AudioFacts(RATE, 2, 1, False),
        "b.wav": AudioFacts(RATE, 2, None, True),
        "c.wav": AudioFacts(RATE, 1, None, True),
    }
    (note,) = recordings_module.notes(facts, RATE)
    assert note.startswith("the loudest channel of 1 recording is used")
    assert note.endswith("a.wav")
    assert recordings_module.warnings(facts) == ["2 clipped recordings: b.wav, c.wav"]


def test_a_set_tells_rates_channels_and_clipping_also_from_the_cache(voices, tmp_path):
    loud = np.clip(2 * np.sin(np.arange(3200) / 9), -1, 1)
    voices("low/clipped.wav", loud)
    voices("high/opposite.wav", np.stack([tone(900, 0.4, 9), -tone(900, 0.4, 9)], axis=1))
    voices("high/fast.wav", tone(900, 0.4, 5)[::2], 4000)
    for _ in range(2):
        dataset = read(voices, tmp_path)
        assert "1 recording: 4 kHz → 8 kHz: there is nothing above 2 kHz" in dataset.notes
        assert any("high/opposite.wav" in note for note in dataset.notes)
        assert "1 clipped recording: low/clipped.wav" in dataset.warnings


def test_silent_recordings_are_skipped_and_named_or_kept(voices, tmp_path):
    voices("low/silent.wav", np.zeros(3000))
    voices("high/hiss.wav", np.full(3000, 0.25) + 1e-5)
    dataset = read(voices, tmp_path)
    assert len(dataset.items) == 8
    assert "2 silent recordings skipped: high/hiss.wav, low/silent.wav" in dataset.warnings
    dataset = read(voices, tmp_path, data__silent="keep")
    assert len(dataset.items) == 10
    assert "2 silent recordings kept: high/hiss.wav, low/silent.wav" in dataset.warnings


def test_a_class_of_silence_alone_stops_the_run(voices, tmp_path):
    shutil.rmtree(voices.folder / "low")
    for i in range(3):
        voices(f"low/{i}.wav", np.zeros(3000))
    with pytest.raises(UserError, match="fewer than two classes"):
        read(voices, tmp_path)


def test_a_set_of_quiet_and_16_bit_recordings_keeps_every_sample(voices, tmp_path):
    quiet = (tone(200, 0.4, 3) * 1e-3).astype(np.float32)
    voices("low/quiet.wav", quiet, subtype="FLOAT")
    dataset = read(voices, tmp_path)
    found = {i.path: array for i, array in zip(dataset.items, dataset.arrays, strict=True)}
    assert found["low/0.wav"].dtype == np.int16
    np.testing.assert_array_equal(found["low/quiet.wav"], quiet)


av = pytest.importorskip("av")

LOSSY = {"m4a": ("ipod", "aac"), "aac": ("adts", "aac"), "wma": ("asf", "wmav2")}
LOSSY |= {"webm": ("webm", "libopus"), "mka": ("matroska", "aac"), "mp4": ("mp4", "aac")}


def encoded(form, codec, rate=48_000):
    """Returns one second of a tone in a container that PyAV writes."""
    out = io.BytesIO()
    samples = (np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * 0.3).astype(np.float32)
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.bit_rate = 64_000
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize("suffix", LOSSY)
def test_formats_of_the_extra_are_read_whole_or_refused(suffix):
    data = encoded(*LOSSY[suffix], rate=44_100 if suffix == "wma" else 48_000)
    samples = to_float(AudioFile(lambda: io.BytesIO(data), 16_000).read())
    assert abs(len(samples) - 16_000) < 1700
    spectrum = np.abs(np.fft.rfft(samples[2000:14_000]))
    assert abs(spectrum.argmax() * 16_000 / 12_000 - 440) < 4
    for part in (0.5, 0.9) if suffix != "wma" else ():  # this stream says nothing of its length
        with pytest.raises(BadFileError):
            AudioFile(lambda: io.BytesIO(data[: int(len(data) * part)]), 16_000).read()  # noqa: B023


def test_more_than_eight_channels_are_read():
    """PyAV would read beyond its memory if they were separate, and often crash."""
    samples = np.random.default_rng(0).normal(0, 0.1, (9000, 18)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, "FLOAT", format="WAV")
    with av_source.open_av(file, "a WAV file") as source:
        np.testing.assert_array_equal(np.concatenate(list(source.parts())), samples)


def test_metadata_that_are_not_unicode_are_ignored():
    data = encoded("ipod", "aac").replace(b"SoundHandler", b"Sound\xff\xfe\xfddler")
    assert b"\xff\xfe\xfd" in data
    assert len(AudioFile(lambda: io.BytesIO(data), 16_000).read()) > 14_000


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    data = b"\0\0\0\x20ftypM4A " + bytes(100)
    with pytest.raises(BadFileError, match=r"an MP4 file; the extra 'av' may read it"):
        AudioFile(lambda: io.BytesIO(data), 16_000)
