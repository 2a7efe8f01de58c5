"""Rows of predictions on their way out: as a table, CSV or JSON lines."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from meljax import progress
from meljax.errors import UserError
from meljax.table import csv_line

FORMATS = ("table", "csv", "jsonl")

Row = dict[str, Any]
"""By column: path, start, end, label, probability, error, label_2, …; what is absent is empty."""

WIDEST = 60
"""Of a table's first column; longer names push the others aside."""

_SUFFIXES = {"": "table", ".txt": "table", ".csv": "csv", ".jsonl": "jsonl"}


def format_of(out: Path | None) -> str:
    """Returns the format that a file's suffix stands for.

    Raises:
      UserError: it stands for none.
    """
    suffix = out.suffix.lower() if out else ""
    if suffix not in _SUFFIXES:
        raise UserError(
            f"--out {out}: what {suffix} should hold is not clear; end the name in .csv, .jsonl or "
            ".txt, or give --format"
        )
    return _SUFFIXES[suffix]


@contextlib.contextmanager
def writer(
    form: str, out: Path | None, columns: Sequence[str], names: Sequence[str]
) -> Iterator[Callable[[Row], None]]:
    """Gives what writes a row at once, so that nothing is lost if more is not to come.

    Args:
      form: one of `FORMATS`.
      out: where to; `None` for standard output.
      columns: in their order.
      names: what will stand in the first column, for its width in a table.

    Raises:
      UserError: `out` cannot be written.
    """
    width = min(max(len("path"), *(len(_shown(name)) for name in names)), WIDEST)
    header, line = _formatter(form, columns, width)
    with contextlib.ExitStack() as stack:
        write = progress.say if out is None else stack.enter_context(_opened(out))
        for text in header:
            write(text)
        yield lambda row: write(line(row))


@contextlib.contextmanager
def _opened(out: Path) -> Iterator[Callable[[str], None]]:
    """Gives what writes a line to a file, at once."""
    try:
        # Names as they came: they need not be valid UTF-8.
        file = open(  # noqa: SIM115 - closed below
            out, "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1
        )
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    with file:
        yield lambda text: print(text, file=file)


def _formatter(
    form: str, columns: Sequence[str], width: int
) -> tuple[list[str], Callable[[Row], str]]:
    """Returns the lines that come first, and what makes a line of a row."""
    if form == "csv":
        return [csv_line(columns)], lambda row: csv_line(map(row.get, columns))
    if form == "jsonl":
        return [], lambda row: json.dumps({column: row.get(column) for column in columns})
    shown = [column for column in columns if column != "error"]
    titles = {column: column for column in shown}
    return [_table_line(titles, shown, width)], lambda row: _table_line(row, shown, width)


def _table_line(row: Row, columns: Sequence[str], width: int) -> str:
    """Returns a row in columns; an error takes the place of what could not be told."""
    if row.get("error"):
        return f"{_shown(row['path']).ljust(width)}  ERROR: {_shown(row['error'])}"
    return "  ".join(_cell(column, row.get(column), width) for column in columns).rstrip()


def _cell(column: str, value: str | float | int | None, width: int) -> str:
    numeric = column.startswith(("start", "end", "probability"))
    if isinstance(value, float):
        value = f"{value:.1%}" if column.startswith("probability") else f"{value:.2f}"
    text = "" if value is None else _shown(str(value))
    if numeric:
        return text.rjust(max(8, len(column)))
    return text.ljust(width if column == "path" else 20)


def _shown(text: str) -> str:
    """Returns text that stays on its line."""
    return text if text.isprintable() else repr(text)
