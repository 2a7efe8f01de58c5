"""Training progress: a bar on a terminal, and a line per epoch."""

import time

from tqdm import tqdm

from meljax.evaluation import metrics
from meljax.evaluation.metrics import Metrics, Row
from meljax.util.progress import interactive, say


class TrainingBar:
    """The bar of a run from epoch `first`, with `images` per epoch, and a line per epoch above it.

    `done` images of epoch `first` were trained on by an earlier session.

    The bar shows epoch, loss, accuracy, images/s and time left; without a terminal there are only
    the lines. The rate leaves out the first step, which compiles.
    """

    FORMAT = "{desc}|{bar}|{unit}"
    REFRESH_SECONDS = 1.0

    def __init__(self, epochs: int, images: int, first: int, done: int = 0):
        self._epochs = epochs
        self._done = self._counted = done
        self._begun = self._refreshed = 0.0
        self._bar = tqdm(
            total=(epochs - first + 1) * images,
            desc="compiling ",
            unit="",
            bar_format=self.FORMAT,
            dynamic_ncols=True,
            leave=False,
            disable=not interactive(),
        )

    def step_done(self, epoch: int, images: int, measured: Metrics) -> None:
        """Counts a step of `images`; about once a second fetches the metrics and draws the bar."""
        if self._bar.disable:
            return
        self._done += images
        if time.perf_counter() - self._refreshed < self.REFRESH_SECONDS:
            return
        (measured,) = metrics.fetch(measured)
        score = f"loss {measured.loss:.3f} acc {metrics.accuracy(measured.confusion):.3f}"
        now = time.perf_counter()
        self._refreshed = now
        if not self._begun:
            self._begun, self._counted = now, self._done
        self._bar.set_description_str(f"epoch {epoch}/{self._epochs} {score} ", refresh=False)
        if now > self._begun:
            rate = (self._done - self._counted) / (now - self._begun)
            left = tqdm.format_interval((self._bar.total - self._done) / rate)
            self._bar.unit = f" {rate:.0f} images/s {left} left"
        self._bar.n = self._done
        self._bar.refresh()

    def epoch_done(self, row: Row) -> None:
        """Prints the scores of an epoch."""
        epoch = row["epoch"]
        left = tqdm.format_interval(row["seconds"] * (self._epochs - epoch))
        say(
            f"epoch {epoch}/{self._epochs} | "
            f"loss {row['train_loss']:.3f} acc {row['train_accuracy']:.3f} | "
            f"val loss {row['val_loss']:.3f} acc {row['val_accuracy']:.3f} "
            f"f1 {row['val_f1']:.3f} | {row['images_per_second']:.0f} images/s | {left} left"
        )

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()
