"""Makes librosa.npz for test_mel_spectrogram.py; needs librosa 0.11. Run in this folder:

python make_librosa.py
"""

import json

import librosa
import numpy as np

from meljax.data.synthetic import draw_clip

SETTINGS = {
    "default": {
        "sample_rate": 16000,
        "n_fft": 1024,
        "hop_length": 256,
        "n_mels": 128,
        "fmin": 0.0,
        "fmax": 0.0,
        "top_db": 80.0,
    },
    "narrow": {
        "sample_rate": 8000,
        "n_fft": 400,
        "hop_length": 160,
        "n_mels": 40,
        "fmin": 60.0,
        "fmax": 3500.0,
        "top_db": 60.0,
    },
}


def signals() -> dict[str, np.ndarray]:
    """A voice, a click in digital silence, and a fading sweep, whose frames are nearly one tone."""
    rng = np.random.default_rng(0)
    time = np.arange(6000) / 16000
    sweep = np.sin(2 * np.pi * (200 * time + 8000 * time**2)) * np.exp(-4 * time)
    click = np.zeros(4097)
    click[2000:2100] = rng.normal(size=100)
    voice = draw_clip(0, 0, 0)[4000:12000] / 32768
    return {"voice": voice, "click": 0.3 * click, "sweep": sweep + 0.001 * rng.normal(size=6000)}


def main() -> None:
    """Writes signals and spectrograms."""
    arrays = {"settings": np.array(json.dumps(SETTINGS))}
    for name, signal in signals().items():
        arrays[name] = (np.clip(signal, -1, 1) * 32767).astype(np.int16)
        for setting, values in SETTINGS.items():
            mel = librosa.feature.melspectrogram(
                y=arrays[name].astype(np.float64) / 32768,
                sr=values["sample_rate"],
                n_fft=values["n_fft"],
                hop_length=values["hop_length"],
                n_mels=values["n_mels"],
                fmin=values["fmin"],
                fmax=values["fmax"] or None,
            )
            decibel = librosa.power_to_db(mel, ref=np.max, top_db=values["top_db"])
            arrays[f"{name}-{setting}"] = decibel.astype(np.float32)
    np.savez_compressed("librosa.npz", **arrays)


if __name__ == "__main__":
    main()
