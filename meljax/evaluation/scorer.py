"""The batched scorer: logits of all windows of a split on the devices or of a stream of files.

Both use the same compiled programs with the same batch size. An item's logits are therefore the
same, bit for bit, in training, evaluation and prediction, whatever else is scored with it.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import IOBase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Shaped

from meljax.data.batches import PADDING, DeviceSet, make_window_set
from meljax.data.decode import decoder, long_recording
from meljax.data.decode.audio_file import AudioFile
from meljax.data.decode.long_recording import LongRecording, Samples, read_recording
from meljax.data.manifest import Bad
from meljax.evaluation.aggregation import item_metrics, item_probabilities
from meljax.evaluation.forward import Model, window_logits
from meljax.evaluation.metrics import Metrics
from meljax.features.windows import scored_starts, starts
from meljax.util import devices
from meljax.util.devices import jit, replicated, split_batch
from meljax.util.errors import BadFileError
from meljax.util.parallel import map_ahead
from meljax.util.progress import track


class WindowOrder(NamedTuple):
    """The order in which the windows of a set are scored, in rows of one batch each.

    Attributes:
      item: index of each window's item; `PADDING` in slots without a window.
      start: start of each window, relative to its item.
    """

    item: Int[Array, "rows batch"]
    start: Int[Array, "rows batch"]


def window_order(model: Model, data: DeviceSet) -> WindowOrder:
    """Returns the order in which the windows of a set are scored, on the devices."""
    batch = devices.scoring_batch(model.mesh.size)
    item, start = np.asarray(data.scored).T
    rows = -(-len(item) // batch)
    padding = (0, rows * batch - len(item))
    order = WindowOrder(
        item=np.pad(item, padding, constant_values=PADDING).astype(np.int32).reshape(rows, batch),
        start=np.pad(start, padding).astype(np.int32).reshape(rows, batch),
    )
    return jax.device_put(order, replicated(model.mesh))


class _Batch(NamedTuple):
    """Row `row` of `order`: windows to cut from `data` and score."""

    data: DeviceSet
    order: WindowOrder
    row: int


@partial(jit, static_argnames=("window", "mesh"))
def cut_row(
    data: DeviceSet, order: WindowOrder, row: Int[Array, ""], window: int, mesh: Mesh
) -> Shaped[Array, "batch window ..."]:
    """Returns the windows of one row of `order`; padding slots hold an arbitrary window."""
    windows = data.windows(jnp.maximum(order.item[row], 0), order.start[row], window)
    return jax.lax.with_sharding_constraint(windows, split_batch(mesh))


def _batch_logits(model: Model, batch: _Batch) -> Float[Array, "batch classes"]:
    windows = cut_row(*batch, model.frontend.window, model.mesh)
    return window_logits(model.network, model.frontend, model.mesh, model.variables, windows)


def _logits(model: Model, batches: Iterable[_Batch]) -> Iterator[Float[Array, "batch classes"]]:
    """Yields the logits of each batch, with as many in flight as suits the backend."""
    batches = iter(batches)
    at_once = devices.batches_in_flight(model.mesh.size)
    if at_once is None:
        # The next batches are dispatched while the consumer waits for one.
        dispatch = partial(_batch_logits, model)
        yield from map_ahead(dispatch, batches, workers=1, ahead=2)
        return

    def compute(batch: _Batch) -> Float[Array, "batch classes"]:
        return jax.block_until_ready(_batch_logits(model, batch))

    # The first batch is scored alone: otherwise several threads would compile the program.
    yield from map(compute, batches if at_once == 1 else itertools.islice(batches, 1))
    yield from map_ahead(compute, batches, workers=at_once, ahead=2 * at_once)


# A split on the devices


def score_split(
    model: Model, data: DeviceSet, order: WindowOrder
) -> tuple[Metrics, Float[Array, "rows batch classes"]]:
    """Returns the metrics of a split and the logits of its windows in `order`, on the devices."""
    rows, batch = order.item.shape
    place = replicated(model.mesh)
    table = jax.device_put(np.zeros((rows, batch, len(model.classes)), np.float32), place)
    batches = (_Batch(data, order, row) for row in range(rows))
    for row, logits in enumerate(_logits(model, batches)):
        table = _write_row(table, row, logits)
    return item_metrics(table, order.item, data.label), table


@partial(jit, donate_argnames="table")
def _write_row(
    table: Float[Array, "rows batch classes"],
    row: Int[Array, ""],
    logits: Float[Array, "batch classes"],
) -> Float[Array, "rows batch classes"]:
    """Returns `table` (donated) with `logits` in row `row`."""
    return jax.lax.dynamic_update_index_in_dim(table, logits, row, 0)


# A stream of files


class Source(NamedTuple):
    """One item of a stream: its name, and a function that reads it or raises `BadFileError`."""

    path: str
    read: Callable[[], Samples]


def read_samples(open_file: Callable[[], IOBase], model: Model, segments: bool = False) -> Samples:
    """Returns the content of a file in the form that `model` takes; raises `BadFileError`.

    `segments`: as in `read_recording`.
    """
    frontend = model.frontend
    if frontend.kind == "audio":
        return read_recording(AudioFile(open_file, frontend.mel.sample_rate), segments)
    decode = decoder.make_decoder("image", frontend.image_size, 0, frontend.crop)
    return decoder.fit(decode(open_file).array, frontend)


@dataclasses.dataclass(frozen=True)
class ScoredItem:
    """The logits of an item's windows, or of successive ones of a long recording.

    Attributes:
      path: the item's name.
      length: of the whole item, in samples or columns, like the starts.
      starts: of the windows that were scored.
      logits: of these windows.
      silent: starts of silent windows that were not scored.
      last: whether no other windows of the item follow.
    """

    path: str
    length: int
    starts: Int[np.ndarray, " windows"]
    logits: Float[np.ndarray, "windows classes"]
    silent: Int[np.ndarray, " silent"]
    last: bool = True

    def probabilities(self, temperature: float) -> Float[np.ndarray, " classes"]:
        """Returns the probabilities of the whole item."""
        whole = np.zeros(len(self.starts), int)
        return item_probabilities(self.logits, whole, temperature)[0]

    def window_probabilities(self, temperature: float) -> Float[np.ndarray, "windows classes"]:
        """Returns the probabilities of each window."""
        return item_probabilities(self.logits, np.arange(len(self.starts)), temperature)


def whole_items(results: Iterable[ScoredItem | Bad]) -> Iterator[ScoredItem | Bad]:
    """Yields the results of `score_stream` with the parts of each item joined."""
    parts: list[ScoredItem] = []
    for result in results:
        if isinstance(result, ScoredItem):
            parts.append(result)
            if not result.last:
                continue
            starts, logits, silent = (
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("starts", "logits", "silent")
            )
            result = ScoredItem(result.path, result.length, starts, logits, silent)
        parts.clear()
        yield result


def track_items(
    results: Iterable[ScoredItem | Bad], items: int, what: str
) -> Iterator[ScoredItem | Bad]:
    """Yields the results of `score_stream` while a bar shows `what` and the items done."""

    def part_done(result: ScoredItem | Bad) -> float:
        if isinstance(result, Bad) or result.last:
            return 1.0
        return max(*result.starts[-1:], *result.silent[-1:], 0) / result.length

    return track(results, items, what, part_done)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Successive windows of an item; starts are relative to the item, which has `length` values."""

    path: str
    length: int
    begin: int  # of `array` in the item
    array: Shaped[np.ndarray, "_ ..."]
    starts: Int[np.ndarray, " windows"]
    last: bool


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A part with windows that are not scored yet; attributes as in `ScoredItem`."""

    path: str
    length: int
    starts: Int[np.ndarray, " windows"]
    silent: Int[np.ndarray, " silent"]
    last: bool
    logits: list[Float[np.ndarray, " classes"]]


def score_stream(model: Model, sources: Iterable[Source | Bad]) -> Iterator[ScoredItem | Bad]:
    """Yields the logits of each source, in order, or why it could not be scored.

    Files are read in threads a few ahead of the scoring, and long recordings in parts, so memory
    stays bounded. If a long recording turns out to be damaged, a `Bad` follows its parts.
    """
    waiting: deque[_Pending | Bad] = deque()
    owners: deque[list[_Pending]] = deque()
    for logits in _logits(model, _stream_batches(model, sources, waiting, owners)):
        for pending, row in zip(owners.popleft(), np.asarray(logits), strict=False):
            pending.logits.append(row)
        yield from _completed(waiting, len(model.classes))
    yield from _completed(waiting, len(model.classes))


def _stream_batches(
    model: Model,
    sources: Iterable[Source | Bad],
    waiting: deque[_Pending | Bad],
    owners: deque[list[_Pending]],
) -> Iterator[_Batch]:
    """Yields all windows in batches; adds parts to `waiting`, each batch's parts to `owners`."""
    batch, window = devices.scoring_batch(model.mesh.size), model.frontend.window
    row: list[tuple[_Pending, np.ndarray, int]] = []

    def take_row() -> _Batch:
        owners.append([pending for pending, _, _ in row])
        pieces = [(array, start) for _, array, start in row]
        data, start = make_window_set(pieces, batch, window, replicated(model.mesh))
        row.clear()
        item = np.arange(batch, dtype=np.int32)[None]
        return _Batch(data, jax.device_put(WindowOrder(item, start), replicated(model.mesh)), 0)

    for part in _parts(sources, window):
        if isinstance(part, Bad):
            waiting.append(part)
            continue
        places = part.starts - part.begin
        scored = scored_starts(part.array, window, model.frontend.skip_silence, places)
        silent = np.setdiff1d(places, scored) + part.begin
        pending = _Pending(part.path, part.length, scored + part.begin, silent, part.last, [])
        waiting.append(pending)
        for start in scored:
            row.append((pending, part.array, int(start)))
            if len(row) == batch:
                yield take_row()
    if row:
        yield take_row()


def _parts(sources: Iterable[Source | Bad], window: int) -> Iterator[_Part | Bad]:
    """Yields each item whole, and long recordings in parts."""
    for source, content in map_ahead(_read, sources, devices.cores(), devices.cores()):
        if isinstance(content, Bad):
            yield content
        elif isinstance(content, LongRecording):
            try:
                yield from _long_parts(source.path, content, window)
            except _UNREADABLE as error:
                yield _bad(source.path, error)
        else:
            places = starts(len(content), window)
            yield _Part(source.path, len(content), 0, content, places, last=True)


def _long_parts(path: str, recording: LongRecording, window: int) -> Iterator[_Part]:
    places = starts(len(recording), window)
    spacing = len(recording) / len(places)
    size = max(1, int((long_recording.MAX_AT_ONCE // 2 - window) / spacing))  # windows in a part
    groups = [places[first : first + size] for first in range(0, len(places), size)]
    spans = [(max(0, int(group[0])), int(group[-1]) + window) for group in groups]
    arrays = recording.read_spans(spans, to_end=True)
    for number, (group, span, array) in enumerate(zip(groups, spans, arrays, strict=True), 1):
        yield _Part(path, len(recording), span[0], array, group, last=number == len(groups))


def _read(source: Source | Bad) -> tuple[Source | Bad, Samples | Bad]:
    try:
        return source, source if isinstance(source, Bad) else source.read()
    except _UNREADABLE as error:
        return source, _bad(source.path, error)


_UNREADABLE = (BadFileError, MemoryError, OSError)


def _bad(path: str, error: BaseException) -> Bad:
    if isinstance(error, MemoryError):
        return Bad(path, "too large for the available memory")
    return Bad(path, (isinstance(error, OSError) and error.strerror) or str(error))


def _completed(waiting: deque[_Pending | Bad], classes: int) -> Iterator[ScoredItem | Bad]:
    """Removes and yields items from the front while they are complete."""
    while waiting:
        first = waiting[0]
        if isinstance(first, _Pending):
            if len(first.logits) < len(first.starts):
                return
            logits = np.array(first.logits, np.float32).reshape(len(first.starts), classes)
            first = ScoredItem(
                first.path, first.length, first.starts, logits, first.silent, first.last
            )
        waiting.popleft()
        yield first
