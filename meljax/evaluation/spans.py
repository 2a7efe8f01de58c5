"""Scored spans: whole items, windows, or successive windows of the same class."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from meljax.data.manifest import Bad
from meljax.evaluation.scorer import ScoredItem
from meljax.evaluation.status import BACKGROUND, ERROR, OK, SILENCE, UNKNOWN, Status
from meljax.features.frontend import Frontend


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of an item, and what was predicted for it.

    Attributes:
      path: the item's name.
      status: one of `meljax.evaluation.status`.
      start: seconds of a recording or columns of an image; `None` for resized images and errors.
      end: as `start`.
      probabilities: calibrated, of all classes; `None` if the status is 'silence' or 'error'.
      error: why the file cannot be used; '' if it can.
      duration: length of the whole recording, in seconds; `None` for images and errors.
    """

    path: str
    status: Status
    start: float | int | None = None
    end: float | int | None = None
    probabilities: Float[np.ndarray, " classes"] | None = None
    error: str = ""
    duration: float | None = None

    @property
    def label(self) -> int | None:
        """The index of the predicted class; `None` if the status is not 'ok'."""
        return int(self.probabilities.argmax()) if self.status == OK else None


def spans_of(
    frontend: Frontend, temperature: float, result: ScoredItem | Bad, by_window: bool
) -> list[Span]:
    """Returns the spans of an item or of a part of it: one, or with `by_window` one per window.

    Args:
      frontend: front end of the model that scored the item.
      temperature: divides the logits.
      result: result of `score_stream`, or of `whole_items` if `by_window` is not set.
      by_window: whether each window is a span; spans are in the order of their starts.
    """
    if isinstance(result, Bad):
        return [Span(result.path, ERROR, error=result.reason)]
    starts, silent = result.starts.tolist(), result.silent.tolist()
    if by_window:
        scored = result.window_probabilities(temperature)
        parts = [(start, start, each) for start, each in zip(starts, scored, strict=True)]
        parts += [(start, start, None) for start in silent]
        parts.sort(key=lambda part: part[0])
    else:
        whole = result.probabilities(temperature) if starts else None
        parts = [(min(starts + silent), max(starts + silent), whole)]
    audio = frontend.kind == "audio"
    duration = result.length / frontend.mel.sample_rate if audio else None
    return [
        Span(
            result.path,
            SILENCE if probabilities is None else OK,
            *_ends(frontend, result.length, first, last),
            probabilities=probabilities,
            duration=duration,
        )
        for first, last, probabilities in parts
    ]


def _ends(
    frontend: Frontend, length: int, first: int, last: int
) -> tuple[float | int | None, float | int | None]:
    """Returns start and end of the part covered by the windows that start at `first` to `last`."""
    start, end = max(first, 0), min(last + frontend.window, length)
    if frontend.kind == "audio":
        rate = frontend.mel.sample_rate
        return start / rate, end / rate
    if frontend.image_size:
        return None, None
    left = frontend.crop[0]  # columns are those of the whole image
    return left + start, left + end


def with_decision(
    span: Span, thresholds: Float[np.ndarray, " classes"], background: int | None = None
) -> Span:
    """Returns the span with its status decided.

    It is 'background' if the most probable class is `background`, 'unknown' if its probability is
    below the threshold of the class, and unchanged otherwise.
    """
    if span.label is None:
        return span
    if span.label == background:
        return dataclasses.replace(span, status=BACKGROUND)
    if span.probabilities[span.label] < thresholds[span.label]:
        return dataclasses.replace(span, status=UNKNOWN)
    return span


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Joins successive windows of the same status and class, and yields the spans.

    Probabilities are the mean over the joined windows, as for whole items. If `spans` raises, the
    windows read so far are yielded first, so nothing already scored is lost.
    """
    growing: _Growing | None = None
    try:
        for span in spans:
            if growing is not None and growing.continues(span):
                growing.add(span)
                continue
            if growing is not None:
                yield growing.joined()
            growing = _Growing(span)
    except (Exception, KeyboardInterrupt):  # not GeneratorExit: a closed generator must not yield
        if growing is not None:
            yield growing.joined()
        raise
    if growing is not None:
        yield growing.joined()


class _Growing:
    """Joins successive windows in constant memory."""

    def __init__(self, first: Span):
        self._first, self._last, self._count = first, first, 1
        self._sum = None if first.probabilities is None else first.probabilities.copy()

    def continues(self, span: Span) -> bool:
        """Returns whether `span` follows without a gap and has the same status and class."""
        last = self._last
        if (span.path, span.status, span.label) != (last.path, last.status, last.label):
            return False
        # If an item is given twice, its windows start again.
        return span.start is not None and last.start < span.start <= last.end

    def add(self, span: Span) -> None:
        """Adds the next window."""
        if self._sum is not None:
            self._sum += span.probabilities
        self._last, self._count = span, self._count + 1

    def joined(self) -> Span:
        """Returns the windows as one span."""
        mean = None if self._sum is None else self._sum / self._count
        return dataclasses.replace(self._first, end=self._last.end, probabilities=mean)
