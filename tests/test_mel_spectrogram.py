import json
from pathlib import Path

import jax
import numpy as np
import pytest

from meljax.features import mel_spectrogram

pytestmark = pytest.mark.accelerator

DATA = Path(__file__).parent / "data"
STORED = np.load(DATA / "librosa.npz")
SETTINGS = json.loads(str(STORED["settings"]))

log_mel = jax.jit(mel_spectrogram.log_mel, static_argnames=list(SETTINGS["default"]))


def waveform_of(signal: str) -> np.ndarray:
    """Returns a stored signal as float32, where 1 is full scale."""
    return STORED[signal].astype(np.float32) / 32768


@pytest.mark.parametrize(
    ("signal", "tolerance"),
    # In a pure tone, values 80 dB below the maximum are dominated by float32 rounding.
    [("voice", 1e-3), ("click", 1e-3), ("sweep", 3e-3)],
)
@pytest.mark.parametrize("setting", SETTINGS)
def test_log_mel_equals_librosa(signal, tolerance, setting):
    decibel = np.asarray(log_mel(waveform_of(signal), **SETTINGS[setting]))
    expected = STORED[f"{signal}-{setting}"]
    assert decibel.shape == expected.shape
    assert np.abs(decibel - expected).max() < tolerance


def test_log_mel_does_not_depend_on_gain():
    waveform = waveform_of("voice")
    loud, quiet = (log_mel(waveform * gain, **SETTINGS["default"]) for gain in (1.0, 0.1))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)


def test_log_mel_of_a_batch_equals_log_mel_of_each_item():
    batch = np.random.default_rng(0).normal(size=(3, 900)).astype(np.float32)
    together = log_mel(batch, **SETTINGS["narrow"])
    alone = np.stack([log_mel(row, **SETTINGS["narrow"]) for row in batch])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 100, 255, 256, 257])
def test_number_of_frames(samples):
    waveform = np.zeros(samples, np.float32)
    assert log_mel.eval_shape(waveform, **SETTINGS["default"]).shape == (128, 1 + samples // 256)


def test_an_odd_transform_has_its_bins_below_half_the_rate():
    """The last of 129 bins of 257 samples at 8 kHz is at 3984.4 Hz, inside the last band."""
    bank = mel_spectrogram.mel_filterbank(8000, 257, 20, 0.0, 4000.0)
    assert bank[-1, -1] > 0
    even = mel_spectrogram.mel_filterbank(8000, 256, 20, 0.0, 4000.0)
    assert even[-1, -1] == 0
