"""Writes rows as a table, CSV or JSON lines; reads CSV."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from meljax.util.errors import UserError
from meljax.util.files import write_errors
from meljax.util.phrases import on_one_line
from meljax.util.progress import say

FORMATS = ("table", "csv", "jsonl")

Row = dict[str, Any]
"""Values by column: path and optionally start, end, label, probability, error, label_2, …"""

WIDEST = 60
"""Maximum width of a table's first column; longer names push the other columns to the right."""

_SUFFIXES = {"": "table", ".txt": "table", ".csv": "csv", ".jsonl": "jsonl"}


def format_of(out: Path | None) -> str:
    """Returns the format for the suffix of `out`; 'table' for standard output."""
    suffix = out.suffix.lower() if out else ""
    if suffix not in _SUFFIXES:
        raise UserError(
            f"--out {out}: unknown suffix {suffix}; use .csv, .jsonl or .txt, or give --format"
        )
    return _SUFFIXES[suffix]


@contextlib.contextmanager
def writer(
    form: str, out: Path | None, columns: Sequence[str], names: Sequence[str]
) -> Iterator[Callable[[Row], None]]:
    """Yields a function that writes and flushes one row, so interrupted output keeps its rows.

    Args:
      form: one of `FORMATS`.
      out: the file to write; `None`: standard output.
      columns: names, in the order of the output.
      names: all values of the first column, which set its width in a table.

    Raises:
      UserError: `out` cannot be written.
    """
    width = min(max(len("path"), *(len(on_one_line(name)) for name in names)), WIDEST)
    header, line = _formatter(form, columns, width)
    with contextlib.ExitStack() as stack:
        write = say if out is None else stack.enter_context(_opened(out))
        for text in header:
            write(text)
        yield lambda row: write(line(row))


@contextlib.contextmanager
def _opened(out: Path) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes and flushes a line to the file `out`.

    The function and the end of the block raise `UserError` if the file cannot be written.
    """
    with write_errors(out, "--out"):
        # File names need not be valid UTF-8: their bytes are written unchanged.
        file = open(  # noqa: SIM115 - closed below
            out, "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1
        )

    def write(text: str) -> None:
        with write_errors(out, "--out"):
            print(text, file=file)

    try:
        yield write
    finally:
        with write_errors(out, "--out"):
            file.close()


def _formatter(
    form: str, columns: Sequence[str], width: int
) -> tuple[list[str], Callable[[Row], str]]:
    """Returns the lines of the header, and a function that formats a row."""
    if form == "csv":
        return [csv_line(columns)], lambda row: csv_line(map(row.get, columns))
    if form == "jsonl":
        return [], lambda row: json.dumps({column: row.get(column) for column in columns})
    shown = [column for column in columns if column not in ("status", "error")]
    titles = {column: column for column in shown}
    return [_table_line(titles, shown, width)], lambda row: _table_line(row, shown, width)


def _table_line(row: Row, columns: Sequence[str], width: int) -> str:
    """Returns a row in columns; an error replaces all columns after the path.

    A status other than 'ok' replaces the label.
    """
    if row.get("error"):
        return f"{on_one_line(row['path']).ljust(width)}  ERROR: {on_one_line(row['error'])}"
    if row.get("status", "ok") != "ok":
        row = row | {"label": f"({row['status']})"}
    return "  ".join(_cell(column, row.get(column), width) for column in columns).rstrip()


def _cell(column: str, value: str | float | int | None, width: int) -> str:
    numeric = column.startswith(("start", "end", "probability"))
    if isinstance(value, float):
        value = f"{value:.1%}" if column.startswith("probability") else f"{value:.2f}"
    text = "" if value is None else on_one_line(str(value))
    if numeric:
        return text.rjust(max(8, len(column)))
    return text.ljust(width if column == "path" else 20)


def csv_line(values: Iterable[Any]) -> str:
    """Returns a row of CSV without its line ending; `None` is an empty field."""
    text = io.StringIO()
    # Python before 3.13 quotes only line endings that occur in the line terminator.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV with a header; raises `OSError` or `csv.Error`."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
