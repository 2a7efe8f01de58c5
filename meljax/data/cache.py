"""Decoded items kept between runs: nothing is decoded again until its file changes."""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from meljax.paths import write_whole

MAGIC = b"meljax decoded 1\n"
MOST_BYTES = 8 * 2**30
"""Of all files together; the ones that were not used for longest go first."""


class Decoded(NamedTuple):
    """What was made of a file.

    Attributes:
      stamp: of the file when it was read; another one, and this is no longer true.
      digest: sha256 of its bytes.
      array: as a `reader.Reader` made it.
    """

    stamp: str
    digest: str
    array: Shaped[np.ndarray, "_ ..."]


def file_of(folder: Path, name: str, settings: str) -> Path:
    """Returns where items of the set `name` lie, as they were decoded under `settings`."""
    key = hashlib.sha256(f"{name}\0{settings}".encode(errors="surrogateescape"))
    return folder / f"{key.hexdigest()[:32]}.decoded"


def load(file: Path) -> dict[str, Decoded]:
    """Returns what `file` holds, by path; nothing if it is missing, of another format or damaged.

    The arrays are read from the disk as they are used.
    """
    try:
        os.utime(file)  # it was used
        content = np.memmap(file, np.uint8, "r")
        start = len(MAGIC) + 8
        if bytes(content[: len(MAGIC)]) != MAGIC:
            return {}
        length = int.from_bytes(bytes(content[len(MAGIC) : start]), "little")
        head = json.loads(bytes(content[start : start + length]))
        data = content[start + length :]
        if zlib.crc32(data) != head["crc32"]:
            return {}
        return {
            path: Decoded(stamp, digest, _array(data, dtype, shape, offset))
            for path, stamp, digest, dtype, shape, offset in head["items"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def save(file: Path, items: Mapping[str, Decoded]) -> None:
    """Keeps `items`, and makes room for them; where they cannot be kept, nothing happens."""
    arrays = [np.ascontiguousarray(item.array) for item in items.values()]
    size = sum(array.nbytes for array in arrays)
    if size > MOST_BYTES // 2:
        return
    ends = np.cumsum([0, *(array.nbytes for array in arrays)])
    table = [
        [path, item.stamp, item.digest, array.dtype.str, list(array.shape), int(offset)]
        for (path, item), array, offset in zip(items.items(), arrays, ends, strict=False)
    ]
    data = b"".join(array.tobytes() for array in arrays)
    head = json.dumps({"crc32": zlib.crc32(data), "items": table}).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, MAGIC + len(head).to_bytes(8, "little") + head + data)
        _make_room(file.parent)
    except OSError:
        return


def _array(
    data: Shaped[np.ndarray, " bytes"], dtype: str, shape: Sequence[int], offset: int
) -> Shaped[np.ndarray, "_ ..."]:
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    return data[offset : offset + size].view(dtype).reshape(shape)


def _make_room(folder: Path) -> None:
    """Removes files that were not used for longest, until the rest is small enough."""
    files = sorted(folder.glob("*.decoded"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files[:-1]:
        if total <= MOST_BYTES:
            return
        total -= file.stat().st_size
        file.unlink()
