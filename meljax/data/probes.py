"""Sounds that no model is trained on: noise, tones, and other synthetic voices.

The report shows how many of them a threshold rejects. The same arguments give the same sounds.
"""

import functools

import numpy as np
from jaxtyping import Float32, Shaped

from meljax.data import synthetic
from meljax.data.decode import decoder
from meljax.features.samples import to_float

COUNT = 32
"""Number of sounds of each kind."""

_VOICES_SEED = 1
"""Seed of the unheard voices; the embedded ones have seed 0."""


def make_probes(samples: int, rate: int) -> dict[str, list[Shaped[np.ndarray, " _"]]]:
    """Returns `COUNT` sounds of each kind: 'noise', 'tones' and 'unheard voices'.

    Noise and tones have `samples` samples at `rate` Hz; voices have their own length, 1.3 to 1.7 s.
    """
    return {
        "noise": [_noise(number, samples) for number in range(COUNT)],
        "tones": [_tone(number, samples, rate) for number in range(COUNT)],
        "unheard voices": list(_voices(rate)),
    }


def _noise(number: int, samples: int) -> Float32[np.ndarray, " {samples}"]:
    """Returns noise whose power falls by 0, 3 or 6 dB per octave: white, pink or brown."""
    rng = np.random.default_rng((number, 0))
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    octave = np.maximum(np.arange(len(spectrum)), 1)
    return _at_level(np.fft.irfft(spectrum * octave ** (-0.5 * (number % 3)), samples), rng)


def _tone(number: int, samples: int, rate: int) -> Float32[np.ndarray, " {samples}"]:
    """Returns a tone between 100 Hz and 0.4 times the rate, with or without four harmonics."""
    rng = np.random.default_rng((number, 1))
    pitch = float(np.exp(rng.uniform(np.log(100), np.log(max(200.0, 0.4 * rate)))))
    time = np.arange(samples) / rate
    harmonics = [k for k in range(1, 1 + 5 * (number % 2) or 2) if k * pitch < rate / 2] or [1]
    wave = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in harmonics)
    return _at_level(wave + 1e-3 * rng.standard_normal(samples), rng)


def _at_level(wave: np.ndarray, rng: np.random.Generator) -> Float32[np.ndarray, " _"]:
    """Returns a wave with a peak between 0.05 and 0.5."""
    return (wave * (rng.uniform(0.05, 0.5) / np.abs(wave).max())).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _voices(rate: int) -> tuple[Shaped[np.ndarray, " _"], ...]:
    """Returns the unheard voices at `rate` Hz; kept, because runs of a process share a rate."""
    clips = (to_float(synthetic.draw_clip(_VOICES_SEED, number, 0)) for number in range(COUNT))
    voices = [decoder.prepare_samples(clip[:, None], synthetic.SAMPLE_RATE, rate) for clip in clips]
    for voice in voices:
        voice.setflags(write=False)
    return tuple(voices)
