"""Text that is written line by line."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from meljax.util.files import write_errors


@contextlib.contextmanager
def line_writer(out: Path, encoding: str = "utf-8") -> Iterator[Callable[[str], None]]:
    """Yields a function that writes and flushes a line to the file `out`.

    The function and the end of the block raise `UserError` if the file cannot be written.
    """
    with write_errors(out, "--out"):
        # File names need not be valid UTF-8: their bytes are written unchanged.
        file = open(  # noqa: SIM115 - closed below
            out, "w", encoding=encoding, errors="surrogateescape", newline="", buffering=1
        )

    def write(text: str) -> None:
        with write_errors(out, "--out"):
            print(text, file=file)

    try:
        yield write
    finally:
        with write_errors(out, "--out"):
            file.close()


def in_one_field(text: str) -> str:
    """Returns `text` with tabs and line breaks as spaces, for formats that have no quotes."""
    return " ".join(text.split()) if not text.isprintable() else text
