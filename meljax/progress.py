"""What a person sees while something long runs: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from meljax import metrics
from meljax.metrics import Metrics, Row, accuracy

T = TypeVar("T")


def say(line: str) -> None:
    """Prints a line at once, above a bar if there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def warn(line: str) -> None:
    """Prints a line that must not be missed, apart from what a program may read."""
    tqdm.write(f"WARNING: {line}", file=sys.stderr)


@contextlib.contextmanager
def ending(end: Callable[[], None]) -> Iterator[None]:
    """Calls `end` in the end; where an error is on its way, that `end` fails is only a warning."""
    try:
        yield
    except BaseException:
        try:
            end()
        except Exception as failure:
            warn(" ".join(str(failure).splitlines()))
        raise
    end()


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

    A line per epoch stands above it; where nobody watches, these lines are all there is. The first
    step, which is compiled, does not count for the rate.
    """

    FORMAT = "{desc}|{bar}|{unit}"
    REFRESH_SECONDS = 1.0

    def __init__(self, epochs: int, images: int, first: int):
        self._epochs = epochs
        self._done = self._counted = 0
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

    def advance(self, epoch: int, images: int, measured: Metrics) -> None:
        """Counts `images` more in `epoch` (from 1).

        Now and then, and only if somebody watches, waits for the scores so far and shows them.
        """
        if self._bar.disable:
            return
        self._done += images
        if time.perf_counter() - self._refreshed < self.REFRESH_SECONDS:
            return
        (measured,) = metrics.fetch(measured)
        loss, counts = float(measured.loss), measured.confusion
        now = time.perf_counter()
        self._refreshed = now
        if not self._begun:
            self._begun, self._counted = now, self._done
        description = f"epoch {epoch}/{self._epochs} loss {loss:.3f} acc {accuracy(counts):.3f} "
        self._bar.set_description_str(description, refresh=False)
        if now > self._begun:
            rate = (self._done - self._counted) / (now - self._begun)
            left = tqdm.format_interval((self._bar.total - self._done) / rate)
            self._bar.unit = f" {rate:.0f} images/s {left} left"
        self._bar.n = self._done
        self._bar.refresh()

    def epoch_done(self, row: Row) -> None:
        """Says what an epoch reached."""
        epoch = row["epoch"]
        left = tqdm.format_interval(row["seconds"] * (self._epochs - epoch))
        say(
            f"epoch {epoch}/{self._epochs} | "
            f"loss {row['train_loss']:.3f} acc {row['train_accuracy']:.3f} | "
            f"val loss {row['val_loss']:.3f} acc {row['val_accuracy']:.3f} "
            f"f1 {row['val_f1']:.3f} | {row['images_per_second']:.0f} images/s | {left} left"
        )

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()
