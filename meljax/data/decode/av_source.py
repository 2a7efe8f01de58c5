"""Decodes AAC, WMA, AMR, WebM, MP4 and the like with PyAV (FFmpeg), from the extra `av`."""

import contextlib
from collections.abc import Iterator
from io import IOBase
from typing import Any

import numpy as np
from jaxtyping import Float32

from meljax.data.decode import containers
from meljax.data.decode.spliced_file import SplicedFile
from meljax.util.errors import BadFileError

_SHORT = 0.3
"""A file may be this many seconds shorter than its stated duration: codecs store whole frames."""
_STATED = ("mov", "matroska", "avi")
"""Containers that state the duration, which FFmpeg guesses for others."""


class AvSource:
    """An open file; see `audio_file.Source`."""

    def __init__(self, container: Any, stream: Any):
        self._container, self._stream = container, stream
        self.rate, self.channels = stream.rate, stream.channels
        self.frames = None
        self.seekable = False

    def parts(self, start: int = 0) -> Iterator[Float32[np.ndarray, "_ channels"]]:
        """Yields all samples, 1 being full scale; raises `BadFileError`.

        `start` must be 0, because the source is not `seekable`.
        """
        assert not start
        import av

        # Interleaved: PyAV reads beyond its memory if more than 8 channels are separate.
        form = av.AudioResampler(format="flt")
        total = 0
        try:
            for frame in self._container.decode(self._stream):
                if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
                    raise BadFileError("its sample rate or channels change")
                for each in form.resample(frame):
                    part = each.to_ndarray().reshape(-1, self.channels)
                    total += len(part)
                    yield part
        except av.error.FFmpegError as error:
            raise BadFileError(f"truncated or damaged ({error.strerror})") from error
        stated = self._stated_seconds()
        if stated and total / self.rate < stated - _SHORT:
            raise BadFileError(f"truncated: {total / self.rate:.1f} s of {stated:.1f} s")

    def _stated_seconds(self) -> float:
        if not self._container.format.name.startswith(_STATED):
            return 0.0
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / 1e6


@contextlib.contextmanager
def open_av(file: IOBase, name: str) -> Iterator[AvSource]:
    """Opens a file; `name` is its format for messages, such as 'an AAC file'.

    Raises:
      BadFileError: it cannot be read, or the extra is not installed.
    """
    try:
        import av
    except ImportError:
        raise BadFileError(f"{name}; the extra 'av' may read it: pip install '.[av]'") from None
    containers.check(file)
    try:
        # Metadata may not be valid UTF-8; PyAV 19 and later always replace invalid bytes.
        older = int(av.__version__.split(".")[0]) < 19
        container = av.open(SplicedFile(file), **({"metadata_errors": "replace"} if older else {}))
    except av.error.FFmpegError as error:
        raise BadFileError(f"{name}; FFmpeg cannot read it ({error.strerror})") from error
    with container:
        stream = next(iter(container.streams.audio), None)
        if stream is None or not getattr(stream, "rate", 0):
            raise BadFileError(f"{name}; FFmpeg finds no sound in it")
        yield AvSource(container, stream)
