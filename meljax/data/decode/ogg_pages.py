"""Checks that an Ogg file is complete (RFC 3533): libsndfile reads truncated ones silently."""

from io import IOBase

from meljax.data.decode.spliced_file import file_size, read_at
from meljax.util.errors import BadFileError

_FIRST, _LAST = 2, 4  # flags of the first and the last page of a stream


def check(file: IOBase) -> None:
    """Raises `BadFileError` if an Ogg file is truncated, damaged or has several streams."""
    at, size, ended = 0, file_size(file), False
    while at < size:
        head = read_at(file, at, 27)
        if head[:4] != b"OggS":
            if ended and size - at < 1 << 16:  # a tag
                return
            raise BadFileError(f"damaged at byte {at:,}" if len(head) == 27 else "truncated")
        if len(head) < 27:
            raise BadFileError("truncated")
        if head[5] & _FIRST and at:
            raise BadFileError("several streams in one file; split it")
        lengths = file.read(head[26])
        at += 27 + len(lengths) + sum(lengths)
        ended = bool(head[5] & _LAST)
    if at > size:
        raise BadFileError("truncated")
