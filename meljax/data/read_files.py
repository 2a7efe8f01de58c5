"""Reads and decodes the files of a manifest in threads."""

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from io import IOBase
from typing import Any, NamedTuple

from meljax.data.decode.spliced_file import file_size
from meljax.data.manifest import Bad, Item, Manifest
from meljax.util.devices import cores
from meljax.util.errors import BadFileError
from meljax.util.parallel import map_ahead
from meljax.util.progress import track

_MAX_BYTES = 1 << 25
"""Maximum size of a file whose bytes are held in memory while it is decoded."""

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
) -> list[Content | Bad]:
    """Returns the decoded content of each item's file, or the reason why it cannot be used.

    `decode` is called in threads and should release the GIL. `what` is the progress bar's title.
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
    return list(track(map_ahead(read, items, workers, 2 * workers), len(items), what))


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
