"""The length of recordings made of chunks: WAV, RF64, BW64, W64, AIFF, CAF and AU files.

Recorders that die and programs that write to a pipe leave a wrong length in the header. libsndfile
then reads a part of the file, or nothing, without an error.
"""

import dataclasses
import re
import struct
from collections.abc import Iterator
from io import IOBase

from meljax.data.decode.spliced_file import SplicedFile, file_size, read_at
from meljax.util.errors import BadFileError

_UNKNOWN = 0x7FFF0000
"""Larger 32-bit sizes mean "unknown": writers that cannot seek use 0xFFFFFFFF or 0x7FFFF000."""
_SLACK = 64
"""Bytes that may be missing or follow: some writers count the header as samples."""
_W64_RIFF = bytes.fromhex("72696666 2e91cf11 a5d628db 04c10000")
_W64_END = bytes.fromhex("f3acd311 8cd100c0 4f8edb8a")
"""The end of the names of W64 chunks; the first four bytes are as in WAV."""
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")


@dataclasses.dataclass(frozen=True)
class _Samples:
    """Where the samples of a file are."""

    start: int
    size: int | None  # as the header says; `None`: unknown
    padding: int = 1  # the next chunk starts at a multiple of this


def checked(file: IOBase) -> IOBase:
    """Returns the file, or one with a corrected header if the length in it is 0 or unknown.

    Files of other formats are returned as they are.

    Raises:
      BadFileError: the file is truncated, or has more samples than its header says.
    """
    magic = read_at(file, 0, 16)
    for starts, find in _FORMATS.items():
        if magic.startswith(starts):
            samples = find(file)
            if samples is None:
                return file
            end = file_size(file)
            if _is_complete(file, samples, end):
                return file
            return _with_length(file, magic, samples.start, end)
    return file


def _is_complete(file: IOBase, samples: _Samples, end: int) -> bool:
    """Returns whether the header is right; False if the length in it is 0 or unknown.

    Raises `BadFileError` if it is wrong.
    """
    available = end - samples.start
    if samples.size is None:
        return available == 0
    if samples.size > available + _SLACK:
        raise BadFileError("truncated")
    after = samples.start + samples.size
    after += -after % samples.padding
    if after >= end - _SLACK:
        return True
    rest = read_at(file, after, 16)
    if rest.startswith(_TAGS) or _are_chunks(file, after, end, samples.padding):
        return True
    if samples.size == 0:
        return False
    raise BadFileError(
        f"its header says {samples.size:,} bytes of samples, but {available:,} follow; convert it "
        "again"
    )


def _are_chunks(file: IOBase, at: int, end: int, padding: int) -> bool:
    """Returns whether other chunks, or zeros, follow the samples to the end of the file."""
    magic, w64 = read_at(file, 0, 4), padding == 8
    big, caf = magic in (b"FORM", b"RIFX"), magic == b"caff"
    while at < end - _SLACK:
        head = read_at(file, at, 24 if w64 else 12 if caf else 8)
        if not any(head):
            return not any(read_at(file, at, min(end - at, 1 << 16)))
        if w64:
            name, size = head[:4], int.from_bytes(head[16:24], "little")
        elif caf:
            name, size = head[:4], 12 + int.from_bytes(head[4:12], "big")
        else:
            name, size = head[:4], 8 + int.from_bytes(head[4:8], "big" if big else "little")
        if not all(32 <= each < 127 for each in name) or size < 8 or at + size > end + _SLACK:
            return False
        at += size
        at += -at % padding
    return True


def _with_length(file: IOBase, magic: bytes, start: int, end: int) -> IOBase:
    """Returns the file with a header that says that the samples end at `end`."""
    size = end - start
    if magic[:4] == b"caff":
        head = bytearray(read_at(file, 0, start))
        head[start - 12 : start - 4] = struct.pack(">q", size + 4)
        return SplicedFile(file, bytes(head), start)
    if magic[:4] in (b"RIFF", b"RF64", b"BW64"):
        chunks = b"".join(
            name + struct.pack("<I", length) + read_at(file, at, length + length % 2)
            for name, at, length in _riff_chunks(file, "<I")
            if name not in (b"ds64", b"data", b"JUNK")
        )
        following = len(chunks) + 8 + size
        if following < _UNKNOWN:
            head = b"RIFF" + struct.pack("<I", 4 + following) + b"WAVE"
            return SplicedFile(file, head + chunks + b"data" + struct.pack("<I", size), start)
        sizes = struct.pack("<QQQI", 4 + 36 + following, size, 0, 0)
        head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", len(sizes)) + sizes
        return SplicedFile(file, head + chunks + b"data\xff\xff\xff\xff", start)
    return file  # libsndfile reads the other formats to their end


def _riff_chunks(file: IOBase, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yields (name, offset of the content, size) of the chunks of a WAV or AIFF, to the samples."""
    at, end = 12, file_size(file)
    while at + 8 <= end:
        head = read_at(file, at, 8)
        (size,) = struct.unpack(order, head[4:])
        yield head[:4], at + 8, size
        if head[:4] in (b"data", b"SSND"):
            return
        at += 8 + size + size % 2


def _in_riff(file: IOBase) -> _Samples | None:
    order = ">I" if read_at(file, 0, 4) == b"RIFX" else "<I"
    long_size = None
    for name, at, size in _riff_chunks(file, order):
        if name == b"ds64":
            _, long_size = struct.unpack("<QQ", read_at(file, at, 16).ljust(16, b"\0"))
        elif name == b"data":
            if size == 0xFFFFFFFF and long_size is not None:
                return _Samples(at, long_size or None, 2)
            return _Samples(at, size if size < _UNKNOWN else None, 2)
    return None


def _in_form(file: IOBase) -> _Samples | None:
    for name, at, size in _riff_chunks(file, ">I"):
        if name == b"SSND":
            return _Samples(at, size if size < _UNKNOWN else None, 2)
    return None


def _in_w64(file: IOBase) -> _Samples | None:
    at, end = 40, file_size(file)
    while at + 24 <= end:
        head = read_at(file, at, 24)
        size = int.from_bytes(head[16:], "little")
        if head[:4] == b"data" and head[4:16] == _W64_END:
            known = 24 <= size < 1 << 62
            return _Samples(at + 24, size - 24 if known else None, 8)
        at += max(24, size + -size % 8)
    return None


def _in_caf(file: IOBase) -> _Samples | None:
    at, end, samples = 8, file_size(file), None
    while at + 12 <= end:
        head = read_at(file, at, 12)
        (size,) = struct.unpack(">q", head[4:])
        if head[:4] == b"desc":
            _check_caf(read_at(file, at + 12, 32).ljust(32, b"\0"))
        if head[:4] == b"pakt":
            _check_packets(read_at(file, at + 12, max(0, min(size, end))), at)
        if head[:4] == b"data" and samples is None:  # its content starts with an edit count
            samples = _Samples(at + 16, size - 4 if size > 0 else None)
            if size <= 0:
                break
        at += 12 + max(0, size)
    return samples


def _check_caf(description: bytes) -> None:
    """Raises `BadFileError` if the sizes contradict each other, which would crash libsndfile."""
    packet, _, channels, bits = struct.unpack(">IIII", description[16:32])
    if description[8:12] == b"lpcm" and packet != channels * (bits // 8):
        raise BadFileError("damaged at byte 20")


def _check_packets(table: bytes, at: int) -> None:
    """Raises `BadFileError` if packet lengths are damaged, before libsndfile prints to stdout."""
    lengths = table[24:]  # 7 bits of a number per byte; its last byte is below 128
    complete = sum(byte < 128 for byte in lengths)
    if complete < int.from_bytes(table[:8], "big") or re.search(rb"[\x80-\xff]{5}", lengths):
        raise BadFileError(f"damaged at byte {at:,}")


def _in_au(file: IOBase) -> _Samples | None:
    order = ">" if read_at(file, 0, 1) == b"." else "<"
    start, size = struct.unpack(order + "II", read_at(file, 4, 8).ljust(8, b"\0"))
    return _Samples(start, size if size < _UNKNOWN else None)


_FORMATS = {
    b"RIFF": _in_riff,
    b"RIFX": _in_riff,
    b"RF64": _in_riff,
    b"BW64": _in_riff,
    b"FORM": _in_form,
    _W64_RIFF: _in_w64,
    b"caff": _in_caf,
    b".snd": _in_au,
    b"dns.": _in_au,
}
