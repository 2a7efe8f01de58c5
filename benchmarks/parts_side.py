"""The parts of a run around its steps, a side of `scripts/bench.py`; needs all of meljax.

The unit of a step differs between the parts.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from meljax_side import Side, device_mb, info
from PIL import Image
from protocol import CLASSES, serve

from meljax.config import DataConfig, MelConfig
from meljax.data.decode import decoder
from meljax.data.read_files import read_all
from meljax.data.sources import read_manifest
from meljax.evaluation.scorer import score_split, window_order
from meljax.features import frontend
from meljax.training.checkpoint_meta import Meta
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import model_of
from meljax.util import devices

SECONDS = 1.5
RATE = 16_000

START = """
import sys, os
from meljax.main import parse
from meljax.training import loop
from meljax.workflows.train import train
whole = loop._train_epoch
def once(*arguments):
    whole(*arguments)
    os._exit(0)
loop._train_epoch = once
train(*parse(sys.argv[1:]))
"""
"""A run that ends after training its first epoch."""


class Parts(Side):
    """A task, its data, its state, and a folder of images."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        super().__init__(batch, size, compute, mode)
        self.batch, self.size, self.compute = batch, size, compute
        self.folder = tempfile.TemporaryDirectory()  # removed with this object
        self.rng = np.random.default_rng(0)

    def decode(self, count: int) -> int:
        """Reads a folder of PNG images; a step is an image."""
        folder = Path(self.folder.name) / "decode"
        if not folder.exists():
            self._draw(folder, CLASSES, 32)
        done, decode = 0, decoder.make_decoder("image", 0, RATE)
        while done < count:
            manifest = read_manifest(DataConfig(path=str(folder)))
            done += len(read_all(manifest, manifest.items, lambda _, opened: decode(opened)))
        return done

    def front_end(self, count: int) -> int:
        """Computes spectrograms of recordings; a step is a recording."""
        length = int(SECONDS * RATE)
        front = frontend.Frontend("audio", length, 0, 1, self.size, MelConfig())
        clips = self.rng.integers(-9999, 9999, (self.batch, length)).astype(np.int16)
        batches = -(-count // self.batch)
        for _ in range(batches):
            images = _images(front, clips)
        jax.block_until_ready(images)
        return batches * self.batch

    def evaluation(self, count: int) -> int:
        """Scores the images as after an epoch; a step is an image."""
        model = model_of(self.task, self.state)
        order = window_order(model, np.asarray(self.data.length))
        times = -(-count // len(self.data))
        for _ in range(times):
            measured, _ = score_split(model, self.data, order)
        jax.block_until_ready(measured)
        return times * len(self.data)

    def checkpoint(self, count: int) -> None:
        """Saves the state to disk; a step is a checkpoint."""
        checkpoints = Checkpoints(Path(self.folder.name) / "checkpoints")
        meta = Meta({"data.image_size": self.size}, self.task.classes, self.task.frontend, {}, ())
        for _ in range(count):
            self.saved = getattr(self, "saved", 0) + 1
            state = self.state.replace(step=jax.numpy.int32(self.saved))
            checkpoints.save(state, meta)
        checkpoints.wait()
        checkpoints.close()

    def start(self, count: int) -> None:
        """Starts runs; a step is a start, up to the end of the run's only training step."""
        folder = Path(self.folder.name) / "start"
        if not folder.exists():
            self._draw(folder, self.batch, 2)  # one for training, one for validation
        root = Path(__file__).parent.parent
        for _ in range(count):
            with tempfile.TemporaryDirectory() as run:
                settings = {"data.path": folder, "model.init": "scratch", "train.epochs": 1}
                settings |= {"data.val_fraction": 0.5, "train.batch_size": self.batch}
                settings |= {"model.compute_dtype": self.compute, "data.image_size": self.size}
                command = [sys.executable, "-c", START, f"--config={root}/configs/resnet.py"]
                command += [f"--config.{key}={value}" for key, value in settings.items()]
                command += [f"--workdir={run}/run"]
                subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=True)

    def _draw(self, folder: Path, classes: int, each: int) -> None:
        """Writes `each` smooth gray images per class."""
        for number in range(classes * each):
            coarse = self.rng.integers(0, 256, (12, 12)).astype(np.uint8)
            image = Image.fromarray(coarse).resize((self.size, self.size), Image.Resampling.BICUBIC)
            file = folder / f"voice{number % classes}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)


_images = devices.jit(frontend.to_images, static_argnums=0)


def prepare(what: str, **setting: Any) -> Any:
    """Returns a function that takes a number of steps and waits for the end."""
    return getattr(Parts(**setting), what)


if __name__ == "__main__":
    devices.set_up()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    serve(prepare, info(), device_mb)
