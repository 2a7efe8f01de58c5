import dataclasses

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from conftest import small_config, tone
from PIL import Image

from meljax import frontend
from meljax.config import MelConfig
from meljax.data import audio, images
from meljax.melspec import log_mel

MEL = small_config().mel
SOUND = frontend.Frontend("sound", 2000, 0, 1, 0, MEL)


def windows(*pitches: float) -> jnp.ndarray:
    clips = [tone(pitch, 0.25, 0) * 30_000 for pitch in pitches]
    return jnp.asarray(np.stack(clips).astype(np.int16))


def test_low_frequencies_are_at_the_bottom_and_the_loudest_is_one():
    low, high = np.asarray(frontend.pictures(SOUND, windows(200, 3000)))
    assert low.shape == (20, 16, 1)
    assert low.mean((1, 2)).argmax() > 10 > high.mean((1, 2)).argmax()
    assert low.max() == high.max() == 1
    assert low.min() >= 0


def test_a_recording_and_its_picture_agree():
    """Drawn as grey levels, a recording's spectrogram is what a set of pictures would hold."""
    seen = frontend.pictures(SOUND, windows(400))
    drawn = Image.fromarray(np.asarray(jnp.round(seen[0, :, :, 0] * 255), np.uint8))
    image = frontend.Frontend("image", drawn.width, drawn.height, 1, 0, MEL)
    columns = jnp.asarray(np.asarray(drawn).T[None, :, :, None])
    np.testing.assert_allclose(frontend.pictures(image, columns), seen, atol=0.5 / 255 + 1e-6)


def test_digital_silence_is_the_floor():
    silent = frontend.pictures(SOUND, jnp.zeros((1, 2000), jnp.int16))
    np.testing.assert_array_equal(silent, 0)


def test_sound_is_resized_as_pillow_resizes_a_picture():
    seen = frontend.pictures(SOUND, windows(400))
    square = frontend.pictures(dataclasses.replace(SOUND, image_size=14), windows(400))
    grey = Image.fromarray(np.asarray(seen[0, :, :, 0]))
    expected = np.asarray(grey.resize((14, 14), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(square[0, :, :, 0], expected, atol=2e-3)


@pytest.mark.parametrize("speaker", ["spk01", "spk13"])
def test_real_recordings_agree_with_their_pictures(shared, speaker):
    """Pictures drawn with librosa and a palette: equal to one step of 256 in brightness."""
    name = f"{speaker}_w00_01"
    samples = audio.read_audio((shared / "voices24" / speaker / f"{name}.flac").read_bytes(), 16000)
    picture = images.read_image((shared / "voices24-mel" / speaker / f"{name}.png").read_bytes())
    mel = MelConfig()
    decibel = log_mel(jnp.asarray(samples, jnp.float32) / 32768, **dataclasses.asdict(mel))
    bright = np.asarray(1 + decibel / 80)[::-1]
    assert picture.shape[:2] == bright.shape
    palette = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(int)
    distance = np.abs(picture[:, :, None].astype(int) - palette).sum(-1)
    level = distance.argmin(-1) / 255
    assert distance.min(-1).max() <= 3
    assert np.abs(level - bright).max() < 1.5 / 255
