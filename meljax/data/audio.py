"""One recording's bytes → mono samples at one rate, and the errors that a bad recording gets."""

import io
from typing import Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16, Shaped

from meljax.errors import BadFileError

MAX_SAMPLES = 2**28  # over all channels, before and after resampling: 1 GB as float32
PEAK = 32767
# A writer that cannot seek back leaves a size like 0xFFFFFFFF or 0x7FFFF000 in the header.
UNKNOWN_SIZE = 0x7FFF0000
# Some writers count the header as samples; a few milliseconds do not make a file a torn one.
MISCOUNT = 64


class _Stream(io.BytesIO):
    """Bytes for libsndfile, which prints the exception of a seek to before the start."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, or stay where a damaged header sends us before the start."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def read_audio(data: bytes, sample_rate: int) -> Int16[np.ndarray, " samples"]:
    """Decode a WAV, FLAC, Ogg, Opus, MP3 or AIFF file to mono at `sample_rate` (Hz).

    16-bit mono at that rate is returned sample for sample. Everything else is averaged over its
    channels, resampled (soxr, HQ) and scaled until its peak is 32767: a mel picture in decibels
    below its own maximum does not see the gain, and a quiet float or 24-bit recording makes the
    best use of 16 bits. Silence stays zero.

    Raises:
      BadFileError: no recording, or one that is truncated, damaged, without samples, not finite or
        longer than `MAX_SAMPLES`.
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
        samples = _mono(_read(file, stream, "float32"))
        if file.samplerate != sample_rate:
            samples = soxr.resample(samples, file.samplerate, sample_rate, quality="HQ")
    return _to_int16(samples)


def _reason(error: soundfile.LibsndfileError) -> str:
    return " ".join(error.error_string.split()).removeprefix("Error : ").rstrip(".")


def _check_length(file: soundfile.SoundFile, sample_rate: int) -> None:
    """Refuse what a header claims before anything of that size is allocated."""
    if file.frames == 2**63 - 1:  # libsndfile's word for a FLAC that was piped
        raise BadFileError("its header gives no length")
    longest = file.frames * file.channels * max(1, sample_rate / file.samplerate)
    if longest > MAX_SAMPLES:
        minutes = file.frames / file.samplerate / 60
        most = minutes * MAX_SAMPLES / longest
        raise BadFileError(
            f"{minutes:,.0f} minutes long, if its header is right; at most {most:,.0f} minutes of "
            "such a recording can be read, cut it into parts"
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
        # The length is a guess from the first frame's bit rate, and libsndfile stops there.
        if stream.tell() < len(data) // 2:
            raise BadFileError("its bit rate varies and its header gives no length")
    elif len(samples) < file.frames:
        raise BadFileError("truncated")
    if not len(samples):
        raise BadFileError("no samples")
    return samples


def _mono(samples: Float32[np.ndarray, " samples *channels"]) -> Float32[np.ndarray, " samples"]:
    if not np.isfinite(samples).all():
        raise BadFileError("not finite")
    if samples.ndim == 1:
        return samples
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32)


def _to_int16(samples: Float32[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    if not len(samples):
        raise BadFileError("no samples")  # shorter than one sample at the wanted rate
    peak = np.abs(samples).max()
    if peak == 0:
        return np.zeros(len(samples), np.int16)
    return np.rint(samples / peak * PEAK).astype(np.int16)


def _ends_early(data: bytes) -> bool:
    """Whether a WAV, AIFF or Ogg file stops inside its samples, which libsndfile passes over."""
    match data[:4]:
        case b"RIFF":
            return _chunk_is_cut(data, b"data", "little")
        case b"FORM":
            return _chunk_is_cut(data, b"SSND", "big")
        case b"OggS":
            return _last_page_is_cut(data)
    return False


def _last_page_is_cut(data: bytes) -> bool:
    table = data.rfind(b"OggS") + 27  # sizes of the page's segments, after their number
    if table > len(data):
        return True
    end = table + data[table - 1]
    return end + sum(data[table:end]) > len(data)


def _chunk_is_cut(data: bytes, name: bytes, order: Literal["little", "big"]) -> bool:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], order)
        if data[at : at + 4] == name:
            return size < UNKNOWN_SIZE and at + 8 + size > len(data) + MISCOUNT
        at += 8 + size + size % 2
    return False
