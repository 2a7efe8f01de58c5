"""Reads and decodes the files of a manifest in threads."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from io import IOBase
from typing import Any, NamedTuple

from meljax.data.decode.spliced_file import file_size
from meljax.data.manifest import Bad, Item, Manifest
from meljax.util import memory
from meljax.util.devices import cores
from meljax.util.errors import BadFileError, UserError
from meljax.util.parallel import map_ahead
from meljax.util.progress import track

_MAX_BYTES = 1 << 25
"""Maximum size of a file whose bytes are held in memory while it is decoded."""

_UNEVEN = 4
"""The first files of a set may be so many times as large as the others."""

OpenFile = Callable[[], IOBase]
"""Opens a file for reading bytes; raises `BadFileError` if it cannot be read."""


class Content(NamedTuple):
    """The content of a file."""

    digest: str  # sha256, hexadecimal
    value: Any  # what the decoder returned


def read_all(
    manifest: Manifest,
    items: Sequence[Item],
    decode: Callable[[Item, OpenFile], Any],
    what: str = "reading",
    size_of: Callable[[Any], int] = lambda _: 0,
) -> list[Content | Bad]:
    """Returns the decoded content of each item's file, or the reason why it cannot be used.

    Args:
      manifest: the set.
      items: those to read.
      decode: returns the content, given an item and a function that opens its file; it is called
        in threads and should release the GIL.
      what: title of the progress bar.
      size_of: returns the bytes of a decoded content that stays in memory.

    Raises:
      UserError: the decoded files do not fit in memory, or all of them are estimated not to.
    """

    def read(item: Item) -> Content | Bad:
        try:
            digest, opened = hash_file(manifest, item)
            return Content(digest, decode(item, opened))
        except BadFileError as error:
            return Bad(item.path, str(error))
        except OSError as error:
            return Bad(item.path, error.strerror or str(error))

    workers = cores()
    results = track(map_ahead(read, items, workers, 2 * workers), len(items), what)
    return list(_within_memory(results, len(items), size_of))


def _within_memory(
    results: Iterable[Content | Bad], total: int, size_of: Callable[[Any], int]
) -> Iterator[Content | Bad]:
    """Yields `results`; raises `UserError` once they cannot all fit in memory."""
    free, used = memory.free_on_host(), 0

    def problem(number: int) -> UserError:
        return UserError(
            f"the set does not fit in memory: {number:,} of its {total:,} files take "
            f"{memory.size(used)} decoded, all need about {memory.size(used * total // number)}, "
            f"and {memory.size(free)} were free; use fewer or shorter files, or a smaller "
            "mel.sample_rate or data.image_size"
        )

    number = 0
    try:
        for number, result in enumerate(results, 1):
            if isinstance(result, Content):
                used += size_of(result.value)
            sampled = number >= max(20, total // 20)
            if used > free or (sampled and used / number * total > _UNEVEN * free):
                raise problem(number)
            yield result
    except MemoryError as error:
        raise problem(max(1, number)) from error


def hash_file(manifest: Manifest, item: Item) -> tuple[str, OpenFile]:
    """Returns the sha256 of an item's file, and a function that opens the file that was hashed.

    Raises:
      BadFileError: the file cannot be opened.
      OSError: it cannot be read.
    """
    with manifest.open(item) as file:
        if file_size(file) > _MAX_BYTES:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest(), partial(manifest.open, item)
        file.seek(0)
        data = file.read()
    return hashlib.sha256(data).hexdigest(), partial(io.BytesIO, data)
