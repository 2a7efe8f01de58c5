"""Checks that MP4, Matroska, WMA and AAC files are complete: FFmpeg reads others silently."""

import struct
from io import IOBase

from meljax.data.decode.spliced_file import file_size, read_at
from meljax.util.errors import BadFileError

_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_SEGMENT = b"\x18\x53\x80\x67"  # the element of Matroska that holds all others


def check(file: IOBase) -> None:
    """Raises `BadFileError` if a file is truncated; files of other formats pass."""
    head, size = read_at(file, 0, 4096), file_size(file)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        end = _matroska_end(head)
    elif head[:4] == b"\x30\x26\xb2\x75":
        end = _asf_end(head)
    elif head[:1] == b"\xff":
        end = _adts_end(file, size)
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        end = _mp4_end(file, size)
    else:
        return
    if end > size:
        raise BadFileError("truncated")


def _mp4_end(file: IOBase, size: int) -> int:
    """Returns where the boxes of an MP4 file end."""
    at = 0
    while at + 8 <= size:
        head = read_at(file, at, 16).ljust(16, b"\0")
        (length,) = struct.unpack(">I", head[:4])
        if length == 1:
            (length,) = struct.unpack(">Q", head[8:])
        if length == 0:  # to the end of the file
            return size
        if length < 8:
            raise BadFileError(f"damaged at byte {at:,}")
        at += length
    return at


def _matroska_end(head: bytes) -> int:
    """Returns where the segment of a Matroska or WebM file ends; 0 if it does not say."""
    at = head.find(_SEGMENT)
    if at < 0 or at + 12 > len(head):
        return 0
    width = 9 - head[at + 4].bit_length()
    value = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
    unknown = value == (1 << 7 * width) - 1
    return 0 if unknown else at + 4 + width + value


def _asf_end(head: bytes) -> int:
    """Returns the size of a WMA file as its header says; 0 if it was broadcast."""
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return 0
    size, flags = (
        int.from_bytes(head[at + i : at + i + n], "little") for i, n in ((40, 8), (88, 4))
    )
    return 0 if flags & 1 else size


def _adts_end(file: IOBase, size: int) -> int:
    """Returns where the frames of an AAC file (ADTS) end."""
    at = 0
    while at + 7 <= size:
        head = read_at(file, at, 7)
        length = int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
        if head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or length < 7:
            if head[:3] in (b"TAG", b"APE"):
                return at
            raise BadFileError(f"damaged at byte {at:,}")
        at += length
    return at if at + 7 > size and at >= size else size + 1
