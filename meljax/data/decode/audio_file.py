"""Reads recordings as mono samples at one rate, in blocks of any length."""

import contextlib
from collections.abc import Callable, Iterator
from io import IOBase
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32, Shaped

from meljax.data.decode import mono
from meljax.data.decode.audio_formats import format_of
from meljax.data.decode.av_source import AvSource, open_av
from meljax.data.decode.resample import first_input, resample, resampled_length
from meljax.data.decode.sound_source import SoundSource, open_sound, reason
from meljax.features.samples import check_samples, narrowed, to_float
from meljax.util.errors import BadFileError

MAX_SAMPLES = 2**28
"""Maximum number of samples of one recording in memory: 1 GB as float32."""
_FULL_SCALE = 1 - 2**-15
_CLIPPED_RUN = 3
"""Number of successive samples at full scale that count as clipping."""
MAX_INCREASE, MAX_DECREASE = 32, 100
"""Maximum factors by which a sample rate is changed; larger ones come from damaged headers.

An increase multiplies the memory that a file takes.
"""


Source = SoundSource | AvSource
"""A decoder of one file, at its own rate. `frames` is `None` if it is not known before the end."""


class AudioFacts(NamedTuple):
    """What was found in the file of a recording."""

    rate: int  # in Hz
    channels: int
    channel: int | None  # that is used; `None`: the mean of all
    clipped: bool


@contextlib.contextmanager
def open_source(open_file: Callable[[], IOBase]) -> Iterator[Source]:
    """Opens a recording with the decoder that its content needs; raises `BadFileError`."""
    with open_file() as file, contextlib.ExitStack() as stack:
        name, reader = format_of(file)
        source = None
        if reader != "av":
            try:
                source = stack.enter_context(open_sound(file, reader))
            except soundfile.LibsndfileError as error:  # for example ALAC in CAF
                name += f"; libsndfile cannot read it ({reason(error)})"
        yield source or stack.enter_context(open_av(file, name))


class AudioFile:
    """A recording, decoded whenever it is read.

    A sample does not depend on which other samples are read with it. The first minute selects the
    channel. 1 is full scale.
    """

    def __init__(self, open_file: Callable[[], IOBase], sample_rate: int):
        """Opens a recording.

        Args:
          open_file: opens its file, whenever it is read.
          sample_rate: of the samples, in Hz.

        Raises:
          BadFileError: not a recording, truncated or damaged.
        """
        self._open, self._rate = open_file, sample_rate
        self._clipped = False
        with open_source(self._open) as source:
            self.source_rate, self.channels = source.rate, source.channels
            self._check_rate()
            self._frames, self.seekable = source.frames, source.seekable
            self._channel = self._choose_channel(source)

    def _check_rate(self) -> None:
        ratio = self._rate / max(1, self.source_rate)
        if not 1 / MAX_DECREASE <= ratio <= MAX_INCREASE:
            raise BadFileError(f"its sample rate of {self.source_rate:,} Hz cannot be right")

    def _choose_channel(self, source: Source) -> int | None:
        if source.channels == 1:
            return None
        left = mono.FIRST_SECONDS * source.rate

        def first() -> Iterator[np.ndarray]:
            nonlocal left
            for part in source.parts():
                check_samples(part)
                yield part[:left]
                left -= len(part)
                if left <= 0:
                    return

        return mono.choose_channel(first())

    @property
    def facts(self) -> AudioFacts:
        """What was found in the file so far."""
        return AudioFacts(self.source_rate, self.channels, self._channel, self._clipped)

    def length(self) -> int:
        """Returns the number of samples; reads the whole file if its header does not know."""
        if self._frames is None:
            with open_source(self._open) as source:
                self._frames = sum(map(len, source.parts()))
        return resampled_length(self._frames, self.source_rate, self._rate)

    def blocks(self, start: int = 0) -> Iterator[Float32[np.ndarray, " _"]]:
        """Yields the samples from `start` on, in blocks of any length.

        If the file is not `seekable`, everything before `start` is decoded too.

        Raises:
          BadFileError: the file is damaged or truncated, or has samples that `check_samples`
            refuses. An error at the end of the file is raised after the last block.
        """
        resampled = self.source_rate != self._rate
        first = first_input(start, self.source_rate, self._rate) if resampled else start
        with open_source(self._open) as source:
            parts = self._mono(source, first)
            if resampled:
                parts = resample(parts, self.source_rate, self._rate, start)
            yield from parts

    def read(self) -> Shaped[np.ndarray, " samples"]:
        """Returns all samples: int16 if that loses nothing, else float32; see `features.samples`.

        Raises:
          BadFileError: as in `blocks`; without samples, or more than `MAX_SAMPLES`.
        """
        samples = self.read_up_to(MAX_SAMPLES)
        if samples is None:
            minutes = MAX_SAMPLES / self._rate / 60
            raise BadFileError(
                f"longer than {minutes:,.0f} minutes, the maximum for one recording in memory; cut "
                "it into parts, or give a table with segments"
            )
        return samples

    def read_up_to(self, limit: int) -> Shaped[np.ndarray, " samples"] | None:
        """Returns what `read` does, or `None` if there are more than `limit` samples."""
        if self._frames is not None and self.length() > limit:
            return None
        blocks, total = [], 0
        for block in self.blocks():
            blocks.append(narrowed(block))
            total += len(block)
            if total > limit:
                return None
        if not total:
            raise BadFileError("no samples")
        if any(block.dtype != np.int16 for block in blocks):
            blocks = [to_float(block) for block in blocks]
        return np.concatenate(blocks)

    def _mono(self, source: Source, first: int) -> Iterator[Float32[np.ndarray, " _"]]:
        """Yields the samples from `first` on at the file's own rate."""
        total = first if source.seekable else 0
        for part in source.parts(total):
            check_samples(part)
            self._clipped = self._clipped or _is_clipped(part)
            skip = max(0, first - total)
            total += len(part)
            if skip < len(part):
                yield mono.to_mono(part, self._channel)[skip:]
        if self._frames not in (None, total):
            raise BadFileError("truncated" if total < self._frames else "damaged")
        self._frames = total


def _is_clipped(part: Float32[np.ndarray, "_ channels"]) -> bool:
    """Returns whether some successive samples of a channel are at full scale."""
    full = np.abs(part) >= _FULL_SCALE
    if not full.any():
        return False
    runs = full
    for _ in range(_CLIPPED_RUN - 1):
        runs = runs[1:] & runs[:-1]
    return bool(runs.any())
