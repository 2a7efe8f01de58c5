"""Files → scores, as they come: read ahead in threads, scored in batches, given back in order."""

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from meljax import backend, calibration, steps, windows
from meljax.data import images, reader
from meljax.data.files import Bad
from meljax.errors import BadFileError
from meljax.mesh import split_batch
from meljax.saved import SavedModel


class Source(NamedTuple):
    """Something to be scored: its name, and what reads it and may raise `BadFileError`."""

    path: str
    read: Callable[[], Shaped[np.ndarray, "_ ..."]]


@dataclasses.dataclass(frozen=True)
class Item:
    """The scores of one item.

    Attributes:
      path: its name.
      length: in samples or columns.
      starts: where its windows begin, in samples or columns; may be negative.
      logits: a row for each window.
    """

    path: str
    length: int
    starts: Int[np.ndarray, " windows"]
    logits: Float[np.ndarray, "windows classes"]

    def probabilities(self, temperature: float) -> Float[np.ndarray, " classes"]:
        """Returns the item's probabilities, the mean of its windows'."""
        whole = np.zeros(len(self.starts), int)
        return calibration.item_probabilities(self.logits, whole, temperature)[0]

    def window_probabilities(self, temperature: float) -> Float[np.ndarray, "windows classes"]:
        """Returns each window's probabilities."""
        each = np.arange(len(self.starts))
        return calibration.item_probabilities(self.logits, each, temperature)


def source(
    path: str,
    model: SavedModel,
    content: Callable[[], bytes],
    check: Callable[[bytes], None] = lambda data: None,
) -> Source:
    """Returns what reads a file as the model takes it.

    Args:
      path: its name.
      model: that is to take it.
      content: gives its bytes, or raises `BadFileError`.
      check: sees the bytes, and may refuse them.
    """
    frontend = model.frontend
    read = reader.make_reader(frontend.kind, frontend.image_size, frontend.mel.sample_rate)

    def load() -> Shaped[np.ndarray, "_ ..."]:
        data = content()
        check(data)
        return reader.fit(read(data), frontend)

    return Source(path, load)


def score(model: SavedModel, sources: Iterable[Source | Bad]) -> Iterator[Item | Bad]:
    """Returns the scores of each source, in order and as they come; or why there are none.

    While some are computed the next ones are read. Whatever else an item is scored with, its scores
    are the same, bit for bit.
    """
    _prepare(model)
    return _scores(model, sources)


def _scores(model: SavedModel, sources: Iterable[Source | Bad]) -> Iterator[Item | Bad]:
    with contextlib.closing(_Computer(model)) as computer:
        waiting: deque[_Pending | Bad] = deque()
        for path, array in _read_ahead(sources):
            if isinstance(array, Bad):
                waiting.append(array)
            else:
                starts = windows.starts(len(array), model.frontend.window)
                waiting.append(_Pending(path, len(array), starts, []))
                computer.add(waiting[-1], array)
            yield from _done(waiting)
        computer.finish()
        yield from _done(waiting)


def _prepare(model: SavedModel) -> None:
    """Compiles what scores, once, ahead of the threads."""
    like = model.frontend.windows(backend.scoring_batch(model.mesh.size))
    _logits(model, np.zeros(like.shape, like.dtype))


def _logits(
    model: SavedModel, seen: Shaped[np.ndarray, "batch window ..."]
) -> Float[np.ndarray, "batch classes"]:
    placed = jax.device_put(seen, split_batch(model.mesh))
    return np.asarray(
        steps.logits(model.network, model.frontend, model.mesh, model.variables, placed)
    )


@dataclasses.dataclass
class _Pending:
    """An item some of whose windows are still being scored; fields as in `Item`."""

    path: str
    length: int
    starts: np.ndarray
    logits: list[np.ndarray]


class _Computer:
    """Gathers windows into batches and computes some batches at the same time."""

    def __init__(self, model: SavedModel):
        self._model = model
        self._batch = backend.scoring_batch(model.mesh.size)
        self._at_once = backend.in_flight()
        self._pool = ThreadPoolExecutor(self._at_once)
        self._row: list[tuple[_Pending, np.ndarray]] = []
        self._computing: deque[tuple[list[_Pending], Future]] = deque()

    def add(self, pending: _Pending, array: Shaped[np.ndarray, "_ ..."]) -> None:
        """Takes all windows of an item; waits where there is enough to do."""
        window = self._model.frontend.window
        short = len(array) < window and array.ndim == 3
        floor = images.floor_colour(array) if short else None
        for start in pending.starts:
            self._row.append((pending, windows.cut(array, int(start), window, floor)))
            if len(self._row) == self._batch:
                self._start()
                self._collect(at_most=2 * self._at_once)

    def finish(self) -> None:
        """Computes what is left."""
        if self._row:
            self._start()
        self._collect(at_most=0)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _start(self) -> None:
        whose, seen = zip(*self._row, strict=True)
        self._row = []
        padded = np.zeros((self._batch, *seen[0].shape), seen[0].dtype)
        padded[: len(seen)] = seen
        self._computing.append((list(whose), self._pool.submit(_logits, self._model, padded)))

    def _collect(self, at_most: int) -> None:
        """Waits for the first batches until `at_most` are left, and hands out their logits."""
        while len(self._computing) > at_most:
            whose, logits = self._computing.popleft()
            for pending, scores in zip(whose, logits.result(), strict=False):
                pending.logits.append(scores)


def _done(waiting: deque[_Pending | Bad]) -> Iterator[Item | Bad]:
    """Takes away and yields the first items as long as they are complete."""
    while waiting:
        first = waiting[0]
        if isinstance(first, _Pending):
            if len(first.logits) < len(first.starts):
                return
            first = Item(first.path, first.length, first.starts, np.stack(first.logits))
        waiting.popleft()
        yield first


def _cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_ahead(sources: Iterable[Source | Bad]) -> Iterator[tuple[str, np.ndarray | Bad]]:
    """Yields what each source holds, in order, reading the next few meanwhile.

    The decoders release Python's lock.
    """

    def read(source: Source | Bad) -> np.ndarray | Bad:
        try:
            return source if isinstance(source, Bad) else source.read()
        except BadFileError as error:
            return Bad(source.path, str(error))
        except MemoryError:
            return Bad(source.path, "too large for the memory that is left")

    workers = _cores()
    reading: deque[tuple[str, Future]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for source in sources:
            reading.append((source.path, pool.submit(read, source)))
            if len(reading) > workers:
                path, future = reading.popleft()
                yield path, future.result()
        for path, future in reading:
            yield path, future.result()
