"""Caches decoded files and the embedded voices; evicts the least recently used cache files.

A cache file consists of `MAGIC`, the length of a JSON table (8 bytes), the table, the arrays end to
end, and a crc32 of everything after `MAGIC` (4 bytes). Numbers are little-endian.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from meljax.data.decode.audio_file import AudioFacts
from meljax.util.files import atomic_writer, remove_stale_temporaries

MAGIC = b"meljax decoded 5\n"
SUFFIX = ".decoded"
MAX_BYTES = 8 * 2**30
"""Maximum size of all cache files together. A set larger than half of it is not cached."""


class CachedItem(NamedTuple):
    """A decoded item."""

    stamp: str  # `Manifest.stamp` when its file was read; if that changes, the entry is invalid
    digest: str  # sha256 of the file, hexadecimal
    array: Shaped[np.ndarray, "_ ..."]  # see `decoder.Decoded`
    facts: AudioFacts | None = None


def cache_file(cache: Path, name: str, settings: str) -> Path:
    """Returns the path in `cache` for the set `name` decoded with `settings`."""
    key = hashlib.sha256(f"{name}\0{settings}".encode(errors="surrogateescape"))
    return cache / "decoded" / f"{key.hexdigest()[:32]}{SUFFIX}"


def load(file: Path) -> dict[str, CachedItem]:
    """Returns the items of `file` by `Item.name`; {} if it is missing, damaged or older.

    The arrays are memory-mapped.
    """
    try:
        os.utime(file)  # marks it as used
        content = np.memmap(file, np.uint8, "r")
        start, end = len(MAGIC), len(content) - 4
        crc = int.from_bytes(bytes(content[end:]), "little")
        if bytes(content[:start]) != MAGIC or zlib.crc32(content[start:end]) != crc:
            return {}
        data = start + 8 + int.from_bytes(bytes(content[start : start + 8]), "little")
        table = json.loads(bytes(content[start + 8 : data]))
        items = {}
        for name, stamp, digest, dtype, shape, facts, offset in table:
            first = data + offset
            size = np.dtype(dtype).itemsize * int(np.prod(shape))
            array = content[first : first + size].view(dtype).reshape(shape)
            items[name] = CachedItem(stamp, digest, array, facts and AudioFacts(*facts))
        return items
    except (OSError, ValueError, TypeError):
        return {}


def save(file: Path, items: Mapping[str, CachedItem]) -> None:
    """Writes `items` and evicts old files; does nothing if the disk is full or not writable."""
    table, size = [], 0
    for name, (stamp, digest, array, facts) in items.items():
        table.append([name, stamp, digest, array.dtype.str, array.shape, facts, size])
        size += array.nbytes
    if size > MAX_BYTES // 2:
        return
    head = json.dumps(table).encode()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(file.parent)
        with atomic_writer(file) as out:
            out.write(MAGIC)
            crc = 0
            parts = (np.ascontiguousarray(item.array) for item in items.values())
            for part in (len(head).to_bytes(8, "little"), head, *parts):
                out.write(part)
                crc = zlib.crc32(part, crc)
            out.write(crc.to_bytes(4, "little"))
        _evict(file)


def _evict(newest: Path) -> None:
    """Removes the least recently used files beside `newest` until all fit into `MAX_BYTES`.

    Files that another process is writing count too, but are not removed.
    """
    files = [path for path in newest.parent.iterdir() if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        if total <= MAX_BYTES:
            return
        if path.suffix == SUFFIX and path != newest:
            path.unlink()
            total -= sizes[path]
