"""Progress for people: bars on a terminal, plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from meljax.util.errors import disk_full

T = TypeVar("T")


def say(line: str) -> None:
    """Prints a line and flushes it, above the progress bar if there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def warn(line: str) -> None:
    """Prints a warning to stderr, which keeps stdout readable for programs."""
    tqdm.write(f"WARNING: {line}", file=sys.stderr)


@contextlib.contextmanager
def ending(end: Callable[[], None]) -> Iterator[None]:
    """Calls `end` after the block; if the block raises, an error of `end` becomes a warning.

    If a full disk caused both, or both have the same message, it is reported once.
    """
    try:
        yield
    except BaseException as error:
        try:
            end()
        except Exception as failure:
            both_full = disk_full(error) and disk_full(failure)
            if not both_full and str(failure) != str(error):
                warn(" ".join(str(failure).splitlines()))
        raise
    end()


def track(
    iterable: Iterable[T], total: int, what: str, part_done: Callable[[T], float] = lambda _: 1.0
) -> Iterator[T]:
    """Yields from `iterable` while a bar shows `what`, the progress and the time left.

    `part_done` returns the fraction of the current item that a result completes; 1: it is done.
    """
    form = "{l_bar}{bar}| {n:.4g}/{total_fmt} [{elapsed}<{remaining}]"
    with tqdm(
        desc=what, total=total, leave=False, disable=not interactive(), bar_format=form
    ) as bar:
        done = 0
        for each in iterable:
            part = part_done(each)
            bar.update(done + part - bar.n)
            done += part == 1
            yield each


@contextlib.contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) that shows the progress of `what`.

    Nothing is shown before its first call.
    """
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
    """Returns whether stderr is a terminal; in a log file a bar would be many lines."""
    return sys.stderr.isatty()
