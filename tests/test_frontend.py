import dataclasses
import functools

import jax
import matplotlib
import numpy as np
import pytest
from conftest import small_config, tone
from PIL import Image

from meljax.config import MelConfig
from meljax.data.decode import image_file
from meljax.data.decode.audio_file import AudioFile
from meljax.features import frontend
from meljax.features.mel_spectrogram import log_mel

pytestmark = pytest.mark.accelerator

MEL = small_config().mel
SOUND = frontend.Frontend("audio", 2000, 0, 1, 0, MEL)


def windows(*pitches: float) -> np.ndarray:
    clips = [tone(pitch, 0.25, 0) * 30_000 for pitch in pitches]
    return np.stack(clips) / 32768


def to_images(of: frontend.Frontend, windows: np.ndarray) -> np.ndarray:
    """Returns the compiled `frontend.to_images` of windows."""
    return np.asarray(jax.jit(frontend.to_images, static_argnums=0)(of, windows))


def decibels(waveform: np.ndarray, mel: MelConfig) -> np.ndarray:
    """Returns the compiled `log_mel` of a waveform."""
    return np.asarray(jax.jit(functools.partial(log_mel, **dataclasses.asdict(mel)))(waveform))


def test_spectrograms_have_low_frequencies_at_the_bottom_and_maximum_one():
    low, high = to_images(SOUND, windows(200, 3000))
    assert low.shape == (20, 16, 1)
    assert low.mean((1, 2)).argmax() > 10 > high.mean((1, 2)).argmax()
    assert low.max() == high.max() == 1
    assert low.min() >= 0


def test_a_recording_and_its_drawn_image_give_the_same_input():
    """The image is the recording's spectrogram, drawn in gray levels."""
    seen = to_images(SOUND, windows(400))
    drawn = Image.fromarray(np.round(seen[0, :, :, 0] * 255).astype(np.uint8))
    image = frontend.Frontend("image", drawn.width, drawn.height, 1, 0, MEL)
    columns = np.asarray(drawn).T[None, :, :, None]
    np.testing.assert_allclose(to_images(image, columns), seen, atol=0.5 / 255 + 1e-6)


def test_digital_silence_is_zero():
    silent = to_images(SOUND, np.zeros((1, 2000), np.float32))
    np.testing.assert_array_equal(silent, 0)


@pytest.mark.parametrize("top_db", [40.0, 60.0])
def test_an_image_spans_the_range_of_the_settings(top_db):
    """Black is `top_db` below the maximum, whatever the setting."""
    sound = dataclasses.replace(SOUND, mel=dataclasses.replace(MEL, top_db=top_db))
    clips = windows(400)
    clips[:, 1000:] = 0
    seen = to_images(sound, clips)
    decibel = decibels(clips / np.abs(clips).max(), sound.mel)
    np.testing.assert_allclose(seen[:, ::-1, :, 0], 1 + decibel / top_db, atol=1e-5)
    assert seen.min() == 0


def test_spectrograms_are_resized_like_images_in_pillow():
    seen = to_images(SOUND, windows(400))
    square = to_images(dataclasses.replace(SOUND, image_size=14), windows(400))
    gray = Image.fromarray(seen[0, :, :, 0])
    expected = np.asarray(gray.resize((14, 14), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(square[0, :, :, 0], expected, atol=2e-3)


@pytest.mark.parametrize("speaker", ["spk01", "spk13"])
def test_real_recordings_agree_with_their_images(shared, speaker):
    """The images were drawn with librosa and a palette; brightness agrees within 1/256."""
    name = f"{speaker}_w00_01"
    file = shared / "voices24" / speaker / f"{name}.flac"
    samples = AudioFile(lambda: file.open("rb"), 16000).read()
    image = image_file.read_image((shared / "voices24-mel" / speaker / f"{name}.png").read_bytes())
    decibel = decibels(samples.astype(np.float32) / 32768, MelConfig())
    bright = 1 + decibel[::-1] / 80
    assert image.shape[:2] == bright.shape
    palette = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(int)
    distance = np.abs(image[:, :, None].astype(int) - palette).sum(-1)
    level = distance.argmin(-1) / 255
    assert distance.min(-1).max() <= 3
    assert np.abs(level - bright).max() < 1.5 / 255
