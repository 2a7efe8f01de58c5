"""What a person sees while something long runs: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from meljax.metrics import Metrics, Row, accuracy

T = TypeVar("T")


def say(line: str) -> None:
    """Prints a line at once, above a bar if there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def warn(line: str) -> None:
    """Prints a line that must not be missed."""
    say(f"WARNING: {line}")


def track(iterable: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields from `iterable` behind a bar that says `what` is done and how long it still takes."""
    yield from tqdm(iterable, desc=what, total=total, leave=False, disable=not interactive())


@contextlib.contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) to be called as work goes on; says nothing before."""
    bar: tqdm | None = None

    def count(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            if not interactive():
                say(what)
            bar = tqdm(desc=what, total=total, leave=False, disable=not interactive())
        bar.update(done - bar.n)

    try:
        yield count
    finally:
        if bar is not None:
            bar.close()


def interactive() -> bool:
    """Returns whether a person watches: a bar would only fill a log file with lines."""
    return sys.stderr.isatty()


class TrainingBar:
    """The bar of a whole run: epoch, loss, accuracy, images/s and time left.

    Where nobody watches, a plain line per epoch says the same.
    """

    FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {rate_fmt}, {remaining} left{postfix}"
    REFRESH_SECONDS = 1.0

    def __init__(self, epochs: int, images: int, done: int):
        self._epochs, self._images = epochs, images
        self._begun = self._refreshed = time.perf_counter()
        self._first = done
        self._bar = tqdm(
            total=epochs * images,
            initial=done * images,
            unit=" images",
            bar_format=self.FORMAT,
            disable=not interactive(),
        )

    def advance(self, epoch: int, images: int, measured: Metrics) -> None:
        """Counts `images` more in `epoch` (from 1).

        Now and then, and only if somebody watches, waits for the scores so far and shows them.
        """
        if self._bar.disable:
            return
        self._bar.set_description_str(f"epoch {epoch}/{self._epochs}", refresh=False)
        if time.perf_counter() - self._refreshed > self.REFRESH_SECONDS:
            loss, counts = float(measured.loss.compute()), np.asarray(measured.confusion.counts)
            self._bar.set_postfix_str(f"loss {loss:.3f}, acc {accuracy(counts):.3f}", refresh=False)
            self._refreshed = time.perf_counter()
        self._bar.update(images)

    def epoch_done(self, row: Row) -> None:
        """Says what an epoch reached."""
        epoch = row["epoch"]
        scores = (
            f"loss {row['train_loss']:.3f} acc {row['train_accuracy']:.3f} | "
            f"val loss {row['val_loss']:.3f} acc {row['val_accuracy']:.3f} f1 {row['val_f1']:.3f}"
        )
        if not self._bar.disable:
            self._bar.set_postfix_str(scores)
            return
        spent = time.perf_counter() - self._begun
        left = spent / (epoch - self._first) * (self._epochs - epoch)
        say(f"epoch {epoch}/{self._epochs} | {scores} | {row['images_per_second']:.0f} images/s | "
            f"{tqdm.format_interval(left)} left")  # fmt: skip

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()
