import dataclasses

import jax.numpy as jnp
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


def windows(*pitches: float) -> jnp.ndarray:
    clips = [tone(pitch, 0.25, 0) * 30_000 for pitch in pitches]
    return jnp.asarray(np.stack(clips) / 32768, jnp.float32)


def test_spectrograms_have_low_frequencies_at_the_bottom_and_maximum_one():
    low, high = np.asarray(frontend.to_images(SOUND, windows(200, 3000)))
    assert low.shape == (20, 16, 1)
    assert low.mean((1, 2)).argmax() > 10 > high.mean((1, 2)).argmax()
    assert low.max() == high.max() == 1
    assert low.min() >= 0


def test_a_recording_and_its_drawn_image_give_the_same_input():
    """The image is the recording's spectrogram, drawn in gray levels."""
    seen = frontend.to_images(SOUND, windows(400))
    drawn = Image.fromarray(np.asarray(jnp.round(seen[0, :, :, 0] * 255), np.uint8))
    image = frontend.Frontend("image", drawn.width, drawn.height, 1, 0, MEL)
    columns = jnp.asarray(np.asarray(drawn).T[None, :, :, None])
    np.testing.assert_allclose(frontend.to_images(image, columns), seen, atol=0.5 / 255 + 1e-6)


def test_digital_silence_is_zero():
    silent = frontend.to_images(SOUND, jnp.zeros((1, 2000)))
    np.testing.assert_array_equal(silent, 0)


@pytest.mark.parametrize("top_db", [40.0, 60.0])
def test_an_image_spans_the_range_of_the_settings(top_db):
    """Black is `top_db` below the maximum, whatever the setting."""
    sound = dataclasses.replace(SOUND, mel=dataclasses.replace(MEL, top_db=top_db))
    clips = windows(400).at[:, 1000:].set(0)
    seen = np.asarray(frontend.to_images(sound, clips))
    waveform = clips / jnp.abs(clips).max().astype(jnp.float32)
    decibel = np.asarray(log_mel(waveform, **dataclasses.asdict(sound.mel)))
    np.testing.assert_allclose(seen[:, ::-1, :, 0], 1 + decibel / top_db, atol=1e-5)
    assert seen.min() == 0


def test_spectrograms_are_resized_like_images_in_pillow():
    seen = frontend.to_images(SOUND, windows(400))
    square = frontend.to_images(dataclasses.replace(SOUND, image_size=14), windows(400))
    gray = Image.fromarray(np.asarray(seen[0, :, :, 0]))
    expected = np.asarray(gray.resize((14, 14), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(square[0, :, :, 0], expected, atol=2e-3)


@pytest.mark.parametrize("speaker", ["spk01", "spk13"])
def test_real_recordings_agree_with_their_images(shared, speaker):
    """The images were drawn with librosa and a palette; brightness agrees within 1/256."""
    name = f"{speaker}_w00_01"
    file = shared / "voices24" / speaker / f"{name}.flac"
    samples = AudioFile(lambda: file.open("rb"), 16000).read()
    image = image_file.read_image((shared / "voices24-mel" / speaker / f"{name}.png").read_bytes())
    mel = MelConfig()
    decibel = log_mel(jnp.asarray(samples, jnp.float32) / 32768, **dataclasses.asdict(mel))
    bright = np.asarray(1 + decibel / 80)[::-1]
    assert image.shape[:2] == bright.shape
    palette = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(int)
    distance = np.abs(image[:, :, None].astype(int) - palette).sum(-1)
    level = distance.argmin(-1) / 255
    assert distance.min(-1).max() <= 3
    assert np.abs(level - bright).max() < 1.5 / 255
