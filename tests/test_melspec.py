import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meljax import melspec

DATA = Path(__file__).parent / "data"
STORED = np.load(DATA / "librosa.npz")
SETTINGS = json.loads(str(STORED["settings"]))


@pytest.mark.parametrize(
    ("signal", "tolerance"),
    # Where a frame is one tone, what lies 80 dB below it meets the rounding of float32 itself.
    [("voice", 1e-3), ("click", 1e-3), ("sweep", 3e-3)],
)
@pytest.mark.parametrize("setting", SETTINGS)
def test_log_mel_is_librosas(signal, tolerance, setting):
    waveform = jnp.asarray(STORED[signal], jnp.float32) / 32768
    decibel = melspec.log_mel(waveform, **SETTINGS[setting])
    expected = STORED[f"{signal}-{setting}"]
    assert decibel.shape == expected.shape
    assert np.abs(decibel - expected).max() < tolerance


def test_log_mel_does_not_depend_on_gain():
    waveform = jnp.asarray(STORED["voice"], jnp.float32) / 32768
    loud, quiet = (melspec.log_mel(waveform * g, **SETTINGS["default"]) for g in (1.0, 0.1))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)


def test_log_mel_of_a_batch_is_that_of_each():
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(3, 900)), jnp.float32)
    together = melspec.log_mel(batch, **SETTINGS["narrow"])
    alone = jnp.stack([melspec.log_mel(row, **SETTINGS["narrow"]) for row in batch])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 100, 255, 256, 257])
def test_frames_are_one_more_than_whole_hops(samples):
    settings = SETTINGS["default"]
    shape = jax.eval_shape(lambda x: melspec.log_mel(x, **settings), jnp.zeros(samples)).shape
    assert shape == (128, 1 + samples // 256)
