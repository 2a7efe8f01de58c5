"""Writes rows in all formats."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from meljax.outputs import audacity, raven
from meljax.outputs.formats import DIGITS, SELECTIONS
from meljax.outputs.parquet import parquet_writer
from meljax.outputs.rows import Row, rounded
from meljax.outputs.terminal_table import TerminalTable, terminal_width
from meljax.outputs.text_file import line_writer
from meljax.util.csv_file import csv_line
from meljax.util.errors import UserError
from meljax.util.progress import say, warn


@dataclasses.dataclass(frozen=True)
class Content:
    """What the rows of an output have in common.

    Attributes:
      columns: names of the columns, in the order of the output.
      paths: paths of all files that have rows.
      classes: names of the classes.
      band: lowest and highest frequency of the model, in Hz; `None` for models of images.
    """

    columns: Sequence[str]
    paths: Sequence[str]
    classes: Sequence[str]
    band: tuple[float, float] | None


def check_format(form: str, out: Path | None, content: Content) -> None:
    """Raises `UserError` if the rows cannot be written to `out` in this format."""
    if form in SELECTIONS and content.band is None:
        raise UserError(
            f"{SELECTIONS[form]} are for recordings, and the model was trained on images"
        )
    if form == "audacity":
        audacity.check_out(out, content.paths)
    if form == "parquet" and out is None:
        raise UserError("Parquet cannot be written to standard output; name a file with --out")


@contextlib.contextmanager
def row_writer(
    form: str, out: Path | None, content: Content, digits: int | None = None
) -> Iterator[Callable[[Row], None]]:
    """Yields a function that writes a row.

    Text is flushed after each row, so interrupted output keeps its rows; a Parquet file is
    completed when the block ends, even by an error.

    Args:
      form: one of `formats.FORMATS`, checked by `check_format`.
      out: the file to write, or a folder of label tracks; `None`: standard output.
      content: what the rows have in common.
      digits: number of decimals; `None`: as in `DIGITS`.

    Raises:
      UserError: `out` cannot be written.
    """
    digits = DIGITS.get(form) if digits is None else digits
    with contextlib.ExitStack() as stack:
        if form == "parquet":
            write = stack.enter_context(parquet_writer(out, content.columns))
        elif form == "audacity" and out is not None and not audacity.is_track(out):
            write = stack.enter_context(audacity.folder_writer(out, content.paths))
        else:
            write = stack.enter_context(_text_writer(form, out, content))
        yield lambda row: write(rounded(row, digits))


@contextlib.contextmanager
def _text_writer(form: str, out: Path | None, content: Content) -> Iterator[Callable[[Row], None]]:
    header, line = _text_form(form, out, content)
    # With a byte order mark, Excel reads a file as UTF-8.
    encoding = "utf-8-sig" if form == "csv" else "utf-8"
    with contextlib.ExitStack() as stack:
        put = say if out is None else stack.enter_context(line_writer(out, encoding))
        for text in header:
            put(text)

        def write(row: Row) -> None:
            if (text := line(row)) is not None:
                put(text)

        yield write


def _text_form(
    form: str, out: Path | None, content: Content
) -> tuple[list[str], Callable[[Row], str | None]]:
    """Returns the lines of the header, and a function that returns the line of a row, if any."""
    columns = content.columns
    if form == "csv":
        return [csv_line(columns)], lambda row: csv_line(map(row.get, columns))
    if form == "jsonl":
        return [], lambda row: json.dumps({column: row.get(column) for column in columns})
    if form == "raven":
        assert content.band is not None
        return ["\t".join(raven.COLUMNS)], raven.line_of(content.band)
    if form == "audacity":
        return [], audacity.line
    width = terminal_width() if out is None else None
    table = TerminalTable(columns, content.paths, content.classes, width)
    # A missing time needs no warning: the path shows it.
    if names := ", ".join(each for each in reversed(table.left_out) if each != "time"):
        warn(f"the terminal is too narrow for {names}; --format csv has all columns")
    return [table.header], table.line
