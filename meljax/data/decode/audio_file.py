"""Decodes WAV, FLAC, Ogg, Opus, MP3 and AIFF files to mono at one rate."""

import io
from typing import Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16, Shaped

from meljax.util.errors import BadFileError

MAX_SAMPLES = 2**28
"""Maximum samples over all channels, before and after resampling: 1 GB as float32."""
PEAK = 32767
UNKNOWN_SIZE = 0x7FFF0000
"""Larger chunk sizes mean "unknown": writers that cannot seek use 0xFFFFFFFF or 0x7FFFF000."""
MISCOUNT = 64
"""Bytes that may be missing: some writers count the header as samples."""


class _Stream(io.BytesIO):
    """A file in memory whose `seek` never raises, because libsndfile would print the exception."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to `offset`; stays in place if a damaged header points before the start."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def read_audio(data: bytes, sample_rate: int) -> Int16[np.ndarray, " samples"]:
    """Returns the samples of a WAV, FLAC, Ogg, Opus, MP3 or AIFF file, mono, at `sample_rate` Hz.

    16-bit mono at that rate is returned unchanged. Everything else is averaged over its channels,
    resampled (soxr, HQ) and scaled to a peak of 32767, so that quiet float or 24-bit recordings use
    all 16 bits; spectrograms in dB below their maximum do not depend on the gain. Silence stays 0.

    Raises:
      BadFileError: not a recording, truncated, damaged, without samples, not finite or longer than
        `MAX_SAMPLES`.
    """
    if not data:
        raise BadFileError("empty file")
    if _ends_early(data):
        raise BadFileError("truncated")
    stream = _Stream(data)
    try:
        file = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        raise BadFileError(f"not a recording that can be read ({_reason(error)})") from error
    with file:
        _check_length(file, sample_rate)
        if file.subtype == "PCM_16" and file.channels == 1 and file.samplerate == sample_rate:
            return _read(file, stream, "int16")
        samples = _read(file, stream, "float32")
        if not np.isfinite(samples).all():
            raise BadFileError("not finite")
        if samples.ndim > 1:
            samples = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
        if file.samplerate != sample_rate:
            samples = soxr.resample(samples, file.samplerate, sample_rate, quality="HQ")
    return _to_int16(samples)


def _reason(error: soundfile.LibsndfileError) -> str:
    return " ".join(error.error_string.split()).removeprefix("Error : ").rstrip(".")


def _check_length(file: soundfile.SoundFile, sample_rate: int) -> None:
    """Raises `BadFileError` if the header gives no length, or one that is too large to allocate."""
    if file.frames == 2**63 - 1:  # libsndfile's value for a FLAC that was written to a pipe
        raise BadFileError("its header gives no length")
    longest = file.frames * file.channels * max(1, sample_rate / file.samplerate)
    if longest > MAX_SAMPLES:
        minutes = file.frames / file.samplerate / 60
        most = minutes * MAX_SAMPLES / longest
        raise BadFileError(
            f"{minutes:,.0f} minutes long according to its header; at most {most:,.0f} minutes of "
            "such a recording can be read; cut it into parts"
        )


def _read(
    file: soundfile.SoundFile, stream: io.BytesIO, dtype: Literal["int16", "float32"]
) -> Shaped[np.ndarray, " samples *channels"]:
    try:
        samples = file.read(file.frames, dtype)
    except soundfile.LibsndfileError as error:
        raise BadFileError(f"truncated or damaged ({_reason(error)})") from error
    data = stream.getvalue()
    if file.format == "MP3" and b"Xing" not in data and b"Info" not in data:
        # libsndfile estimates the length from the first frame's bit rate and stops reading there.
        if stream.tell() < len(data) // 2:
            raise BadFileError("its bit rate varies and its header gives no length")
    elif len(samples) < file.frames:
        raise BadFileError("truncated")
    if not len(samples):
        raise BadFileError("no samples")
    return samples


def _to_int16(samples: Float32[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    if not len(samples):
        raise BadFileError("no samples")  # shorter than one sample at the new rate
    peak = np.abs(samples).max()
    if peak == 0:
        return np.zeros(len(samples), np.int16)
    return np.rint(samples / peak * PEAK).astype(np.int16)


def _ends_early(data: bytes) -> bool:
    """Returns whether a WAV, AIFF or Ogg file is cut off, which libsndfile does not report."""
    match data[:4]:
        case b"RIFF":
            return _chunk_is_cut(data, b"data", "little")
        case b"FORM":
            return _chunk_is_cut(data, b"SSND", "big")
        case b"OggS":
            table = data.rfind(b"OggS") + 27  # segment sizes of the last page, after their number
            end = table + data[table - 1] if table <= len(data) else table
            return end + sum(data[table:end]) > len(data)
    return False


def _chunk_is_cut(data: bytes, name: bytes, order: Literal["little", "big"]) -> bool:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], order)
        if data[at : at + 4] == name:
            return size < UNKNOWN_SIZE and at + 8 + size > len(data) + MISCOUNT
        at += 8 + size + size % 2
    return False
