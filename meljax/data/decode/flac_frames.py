"""The length of FLAC files, from their last frame (RFC 9639).

Programs that write to a pipe leave the number of samples at 0, and libsndfile then loses the end of
the file.
"""

import functools
from io import IOBase

from meljax.data.decode.audio_formats import after_tags
from meljax.data.decode.spliced_file import SplicedFile, file_size, read_at
from meljax.util.errors import BadFileError

_TAIL = 1 << 18
"""Bytes at the end of a file in which the last frame must start."""
_BLOCK_SIZES = {1: 192, **{n: 576 << (n - 2) for n in range(2, 6)}}
_BLOCK_SIZES |= {n: 256 << (n - 8) for n in range(8, 16)}


def checked(file: IOBase) -> IOBase:
    """Returns a FLAC file with the number of samples in its header, if that is 0.

    Raises:
      BadFileError: the file is truncated, or has more samples than its header says.
    """
    start = after_tags(file, 0)
    head = bytearray(read_at(file, start, 42))  # marker, then the block STREAMINFO
    if len(head) < 42:
        raise BadFileError("truncated")
    fields = int.from_bytes(head[18:26], "big")  # rate, channels, bits, number of samples
    said, block_size = fields % (1 << 36), int.from_bytes(head[8:10], "big")
    found = _samples(file, block_size, said)
    if said and found < said:
        raise BadFileError("truncated")
    if said not in (0, found):
        raise BadFileError(
            f"its header says {said:,} samples, but it has {found:,}; convert it again"
        )
    head[18:26] = (fields - said + found).to_bytes(8, "big")
    return SplicedFile(file, bytes(head), start + 42)


def _samples(file: IOBase, block_size: int, said: int) -> int:
    """Returns the number of samples up to the end of the last frame; raises `BadFileError`.

    A frame that ends at the header's number of samples, `said`, is accepted; any other must have a
    correct checksum.
    """
    tail = read_at(file, max(0, file_size(file) - _TAIL), _TAIL)
    at = len(tail)
    while (at := max(tail.rfind(b"\xff\xf8", 0, at), tail.rfind(b"\xff\xf9", 0, at))) >= 0:
        if frame := _frame(tail, at, block_size):
            header_end, samples = frame
            whole = any(
                end > header_end + 2 and _crc16(tail[at:end]) == 0
                for end in _ends(tail)
                if samples != said
            )
            if whole or samples == said:
                return samples
    raise BadFileError("truncated")


def _ends(tail: bytes) -> list[int]:
    """Returns where the last frame may end: at the end of the file, or before a tag."""
    ends = [len(tail)]
    if len(tail) > 128 and tail[-128:-125] == b"TAG":
        ends.append(len(tail) - 128)
    return ends


def _frame(data: bytes, at: int, block_size: int) -> tuple[int, int] | None:
    """Returns the end of a frame's header, and the number of samples up to the frame's end."""
    if at + 7 > len(data) or data[at + 3] & 1:
        return None
    size_code, rate_code = data[at + 2] >> 4, data[at + 2] & 15
    first = data[at + 4]
    length = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()
    if size_code == 0 or rate_code == 15 or (length in (0, 8) and first != 0xFE):
        return None
    number = first if length == 1 else first & ((1 << max(0, 7 - length)) - 1)
    for byte in data[at + 5 : at + 4 + length]:
        number = number << 6 | byte & 0x3F
    end = at + 4 + length
    if size_code in (6, 7):
        extra = size_code - 5
        count = int.from_bytes(data[end : end + extra], "big") + 1
        end += extra
    else:
        count = _BLOCK_SIZES[size_code]
    end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if end >= len(data) or _crc8(data[at : end + 1]):
        return None
    by_frame = data[at + 1] == 0xF8
    return end + 1, (number * block_size if by_frame else number) + count


@functools.cache
def _table(bits: int, polynomial: int) -> list[int]:
    """Returns the remainder of each byte in a cyclic redundancy check."""
    table, top = [], 1 << (bits - 1)
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value & top else 0)
        table.append(value % (1 << bits))
    return table


def _crc8(data: bytes) -> int:
    table, crc = _table(8, 0x107), 0
    for byte in data:
        crc = table[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    table, crc = _table(16, 0x18005), 0
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ table[crc >> 8 ^ byte]
    return crc
