"""Makes a small run that later versions must read: python tests/data/make_run.py FOLDER

Recordings and the run are written to FOLDER. It should be a folder such as /fixture, which exists
on no other machine, because the run records it.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

from meljax.main import main

RATE = 4000

KEYS = {
    "model.name": "cnn",
    "model.width": 1,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.learning_rate": 0.01,
    "mel.sample_rate": RATE,
    "mel.n_fft": 128,
    "mel.hop_length": 64,
    "mel.n_mels": 16,
}


def make_recordings(folder: Path) -> None:
    """Writes two classes of 14 tones in noise, of 0.2 s or longer."""
    rng = np.random.default_rng(2)
    for number in range(28):
        time = np.arange(800 + 20 * (number % 3)) / RATE
        tone = np.sin(2 * np.pi * (400, 900)[number % 2] * time)
        file = folder / ("ann", "bob")[number % 2] / f"{number // 2:02}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.3 * tone + 0.1 * rng.normal(size=len(time))
        soundfile.write(file, samples, RATE, subtype="PCM_16")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    make_recordings(folder / "voices")
    root = Path(__file__).parents[2]
    arguments = [f"--config={root}/configs/cnn.py", f"--config.data.path={folder}/voices"]
    arguments += [f"--config.{key}={value}" for key, value in KEYS.items()]
    run = folder / "run"
    assert main([*arguments, f"--workdir={run}"]) == 0
    shutil.rmtree(run / "tensorboard")
    for file in (run / "report.html", run / ".lock"):
        file.unlink()
