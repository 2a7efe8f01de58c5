"""Decodes what libsndfile reads: WAV and its relatives, AIFF, AU, CAF, FLAC, Ogg, Opus and MP3."""

import contextlib
from collections.abc import Iterator
from io import IOBase

import numpy as np
import soundfile
from jaxtyping import Float32

from meljax.data.decode import chunks, flac_frames, mp3_frames, ogg_pages
from meljax.data.decode.spliced_file import SplicedFile
from meljax.util.errors import BadFileError
from meljax.util.native_output import hidden

_MP3_SLACK = 3 * 1152
"""Samples of an MP3 that may be missing."""
_EXACT = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Encodings whose samples are the same after seeking."""
_PART = 1 << 17
"""Values over all channels that are decoded at once."""


class SoundSource:
    """An open file; see `audio_file.Source`."""

    def __init__(self, file: soundfile.SoundFile):
        self._file = file
        self.rate, self.channels = file.samplerate, file.channels
        # The decoder of MP3 may leave out the first frames, which need the ones before them.
        self.frames = None if file.format == "MP3" else file.frames
        self.seekable = file.subtype in _EXACT

    def parts(self, start: int = 0) -> Iterator[Float32[np.ndarray, "_ channels"]]:
        """Yields the samples from `start` on, 1 being full scale; raises `BadFileError`.

        `start` is 0 unless the source is `seekable`.
        """
        size, left = max(1, _PART // self.channels), self._file.frames - start
        quiet = hidden if self._file.format == "MP3" else contextlib.nullcontext
        try:
            if start:
                self._file.seek(start)
            while left:
                with quiet():
                    part = self._file.read(min(size, left), "float32", always_2d=True)
                if not len(part):
                    break
                left -= len(part)
                yield part
        except soundfile.LibsndfileError as error:
            raise BadFileError(f"truncated or damaged ({reason(error)})") from error
        if left > (0 if self.frames else _MP3_SLACK):
            raise BadFileError("truncated or damaged")


@contextlib.contextmanager
def open_sound(file: IOBase, reader: str) -> Iterator[SoundSource]:
    """Opens a recording.

    Raises:
      BadFileError: its length is wrong.
      soundfile.LibsndfileError: libsndfile cannot read it.
    """
    checked = _with_right_length(file, reader)
    if checked is file:
        checked = SplicedFile(file)
    with hidden() if reader == "mp3" else contextlib.nullcontext():
        sound = soundfile.SoundFile(checked)
    with sound:
        yield SoundSource(sound)


def _with_right_length(file: IOBase, reader: str) -> IOBase:
    match reader:
        case "flac":
            return flac_frames.checked(file)
        case "mp3":
            return mp3_frames.checked(file)
        case "ogg":
            ogg_pages.check(file)
    return chunks.checked(file)


def reason(error: soundfile.LibsndfileError) -> str:
    """Returns the text of an error."""
    return " ".join(error.error_string.split()).removeprefix("Error : ").rstrip(".")
