"""Long recordings: read in parts, never held as a whole."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Shaped

from meljax.data.decode.audio_file import MAX_SAMPLES, AudioFile
from meljax.util.devices import cores
from meljax.util.parallel import map_ahead

MAX_AT_ONCE = 1 << 22
"""Recordings with more samples are read in parts; this many take 16 MB as float32."""


@dataclasses.dataclass(frozen=True)
class LongRecording:
    """`length` samples of `file` from `first` on; slices are read when they are needed."""

    file: AudioFile
    first: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> "LongRecording":
        """Returns a part of consecutive samples."""
        start, stop, _ = part.indices(self.length)
        return LongRecording(self.file, self.first + start, max(0, stop - start))

    def read_spans(
        self, spans: Sequence[tuple[int, int]], to_end: bool = False
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """Yields the samples [start, stop) of each span; `spans` are in order and may overlap.

        Threads read the next spans ahead; one thread if the file is not seekable. `to_end`: whether
        the file is checked to its end, even if no span reaches it.

        Raises:
          BadFileError: as in `AudioFile.blocks`. A span at the end of the file is yielded only
            after the end was checked.
        """
        spans = [(self.first + start, self.first + stop) for start, stop in spans]
        if not spans:
            return iter(())
        last = spans[-1]
        if not self.file.seekable:
            # Not in this thread: a signal that arrives inside of a decoder's callback is lost.
            parts = self._in_order(spans, to_end)
            return map_ahead(lambda _: next(parts), spans, workers=1, ahead=2)

        def read(run: list[tuple[int, int]]) -> list[Float32[np.ndarray, " _"]]:
            return list(self._in_order(run, to_end and run[-1] is last))

        return itertools.chain.from_iterable(map_ahead(read, _runs(spans), cores(), cores()))

    def _in_order(
        self, spans: Sequence[tuple[int, int]], to_end: bool
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        begin, end = spans[0][0], max(stop for _, stop in spans)
        to_end = to_end or end >= self.file.length()
        return cut_spans(self.file.blocks(begin), begin, spans, to_end)


Samples = Shaped[np.ndarray, "_ ..."] | LongRecording
"""Samples or columns of an item, or a long recording; time is first."""


def read_recording(
    file: AudioFile, segments: bool = False
) -> Shaped[np.ndarray, " samples"] | LongRecording:
    """Returns all samples as `AudioFile.read` does, or a long recording if they are many.

    `segments`: whether segments will be read one by one. A file that is not seekable is then read
    whole up to `MAX_SAMPLES`.

    Raises:
      BadFileError: the file cannot be used.
    """
    samples = file.read_up_to(MAX_SAMPLES if segments and not file.seekable else MAX_AT_ONCE)
    return LongRecording(file, 0, file.length()) if samples is None else samples


def _runs(spans: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yields successive spans that are near each other together, to be read at once."""
    run: list[tuple[int, int]] = []
    for span in spans:
        if run and span[1] - run[0][0] > MAX_AT_ONCE // 2:
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def cut_spans(
    blocks: Iterable[Float32[np.ndarray, " _"]],
    begin: int,
    spans: Sequence[tuple[int, int]],
    to_end: bool,
) -> Iterator[Float32[np.ndarray, " _"]]:
    """Yields the samples [start, stop) of each span of a signal that comes in blocks.

    Args:
      blocks: the signal from its sample `begin` on.
      begin: place of the first block.
      spans: in order; they may overlap.
      to_end: whether all blocks are taken before the last span is yielded.
    """
    blocks = iter(blocks)
    held, at = np.zeros(0, np.float32), begin
    for number, (start, stop) in enumerate(spans, 1):
        pieces, end = [held[max(0, start - at) :]], at + len(held)
        at = max(at, start)
        while end < stop and (block := next(blocks, None)) is not None:
            pieces.append(block[max(0, start - end) :])
            end += len(block)
        held = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        if to_end and number == len(spans):
            for _ in blocks:
                pass
        yield held[: stop - start].copy()  # a view would keep all of `held` in memory
