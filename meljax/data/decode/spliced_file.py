"""A file whose start is replaced: a decoder reads a corrected header, and may seek anywhere."""

import io
from io import IOBase
from typing import Any


class SplicedFile(io.RawIOBase):
    """The bytes `head`, followed by those of `file` from `skip` on; it is read-only."""

    def __init__(self, file: IOBase, head: bytes = b"", skip: int = 0):
        super().__init__()
        self._file, self._head, self._skip = file, head, skip
        self._size = len(head) + file_size(file) - skip
        self._at = 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to `offset`; stays in place if a damaged header points before the start.

        An exception would be printed by libsndfile.
        """
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at >= 0:
            self._at = at
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer` from the position on; returns the number of bytes read."""
        view = memoryview(buffer)
        part = self._head[self._at : self._at + len(view)]
        view[: len(part)] = part
        rest = view[len(part) :]
        count = len(part)
        if len(rest) and self._at < self._size:  # a damaged header may point far beyond the end
            self._file.seek(self._skip + max(0, self._at - len(self._head)))
            data = self._file.read(len(rest))
            rest[: len(data)] = data
            count += len(data)
        self._at += count
        return count


def file_size(file: IOBase) -> int:
    """Returns the number of bytes of a file; its position is at the end afterwards."""
    return file.seek(0, io.SEEK_END)


def read_at(file: IOBase, offset: int, size: int) -> bytes:
    """Returns up to `size` bytes of a file from `offset` on."""
    file.seek(offset)
    return file.read(size)
