"""The parts of a run around its steps, as a side of `scripts/bench.py`; needs all of meljax.

What a step here is, and hence what its time is the time of, differs from part to part.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from meljax_side import Side, device_mb, facts
from PIL import Image
from protocol import CLASSES, serve

from meljax import backend, frontend, scoring
from meljax.checkpoint import Checkpoints
from meljax.config import MelConfig
from meljax.data import files, reader
from meljax.data.load import read_all

SECONDS = 1.5
RATE = 16_000

START = """
import sys, os
from meljax import train
from meljax.main import parse
whole = train._train_epoch
def once(*arguments):
    whole(*arguments)
    os._exit(0)
train._train_epoch = once
train.train(*parse(sys.argv))
"""
"""A run that is cut off behind its first epoch."""


class Parts(Side):
    """A task, its data, its state, and a folder of pictures."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        super().__init__(batch, size, compute, mode)
        self.batch, self.size, self.compute = batch, size, compute
        self.folder = tempfile.TemporaryDirectory()  # removed with this object
        self.rng = np.random.default_rng(0)

    def decode(self, count: int) -> int:
        """Reads a folder of PNG pictures; a step is a picture."""
        folder = Path(self.folder.name) / "decode"
        if not folder.exists():
            self._draw(folder, CLASSES, 32)
        done = 0
        while done < count:
            listing = files.scan(str(folder), "label", "group")
            done += len(read_all(listing, reader.make_reader("image", 0, RATE)))
        return done

    def front_end(self, count: int) -> int:
        """Turns recordings into spectrograms; a step is a recording."""
        length = int(SECONDS * RATE)
        front = frontend.Frontend("sound", length, 0, 1, self.size, MelConfig())
        sounds = self.rng.integers(-9999, 9999, (self.batch, length)).astype(np.int16)
        batches = -(-count // self.batch)
        for _ in range(batches):
            pictures = _pictures(front, sounds)
        jax.block_until_ready(pictures)
        return batches * self.batch

    def evaluation(self, count: int) -> int:
        """Scores the set as after an epoch; a step is a picture."""
        order = scoring.scoring_order(self.task, self.data)
        times = -(-count // len(self.data))
        for _ in range(times):
            measured, _ = scoring.score(self.task, self.state, self.data, order)
        jax.block_until_ready(measured)
        return times * len(self.data)

    def checkpoint(self, count: int) -> None:
        """Saves the state until it is on the disk; a step is a checkpoint."""
        checkpoints = Checkpoints(Path(self.folder.name) / "checkpoints")
        for _ in range(count):
            self.saved = getattr(self, "saved", 0) + 1
            row = {"epoch": self.saved, "step": self.saved, "val_accuracy": 0.5, "val_loss": 1.0}
            checkpoints.save(self.state, {}, row)
        checkpoints.wait()
        checkpoints.close()

    def start(self, count: int) -> None:
        """Begins a run; a step is a start, to the end of the run's only training step."""
        folder = Path(self.folder.name) / "start"
        if not folder.exists():
            self._draw(folder, self.batch, 2)  # one to train on, one to validate
        root = Path(__file__).parent.parent
        for _ in range(count):
            with tempfile.TemporaryDirectory() as run:
                settings = {"data.path": folder, "model.init": "scratch", "train.epochs": 1}
                settings |= {"data.val_fraction": 0.5, "train.batch_size": self.batch}
                settings |= {"model.compute": self.compute, "data.image_size": self.size}
                command = [sys.executable, "-c", START, f"--config={root}/configs/resnet.py"]
                command += [f"--config.{key}={value}" for key, value in settings.items()]
                command += [f"--workdir={run}/run"]
                subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=True)

    def _draw(self, folder: Path, classes: int, each: int) -> None:
        """Writes `each` smooth grey pictures per class."""
        for number in range(classes * each):
            coarse = self.rng.integers(0, 256, (12, 12)).astype(np.uint8)
            picture = Image.fromarray(coarse).resize(
                (self.size, self.size), Image.Resampling.BICUBIC
            )
            file = folder / f"voice{number % classes}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)


_pictures = backend.jit(frontend.pictures, static_argnums=0)


def prepare(what: str, **setting: Any) -> Any:
    """Returns a function of a number of steps that takes them and waits for the end."""
    return getattr(Parts(**setting), what)


if __name__ == "__main__":
    backend.set_up()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    serve(prepare, facts(), device_mb)
