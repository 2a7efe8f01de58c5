"""From the rows of tables to a manifest: checks files, classes, segments and splits."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from meljax.data.manifest import (
    Bad,
    Item,
    Manifest,
    check_groups,
    common_kind,
    file_manifest,
    kind_of,
)
from meljax.data.split_names import SPLIT_OF_NAME, split_of
from meljax.data.tables.columns import time_columns
from meljax.data.tables.find_files import Finder, Found, is_url
from meljax.data.tables.labels import several_classes
from meljax.data.tables.read_table import Table
from meljax.util.errors import UserError
from meljax.util.phrases import count


class Row(NamedTuple):
    """A row of a table: an item that is not checked yet."""

    table: Table
    number: int
    cell: str  # names the file
    label: str
    group: str = ""
    split: str = ""  # as in the table
    start: float | None = None
    end: float | None = None

    @property
    def at(self) -> str:
        """The start of a message about the row."""
        return self.table.at(self.number)

    @property
    def place(self) -> str:
        """The row in the middle of a message."""
        return f"{self.table.unit} {self.number}"


def manifest_of(
    source: Path,
    rows: Sequence[Row],
    finder: Finder,
    found: Mapping[str, Found],
    training: bool,
    group: str,
    notes: Sequence[str],
    left_out: Mapping[str, int] | None = None,
) -> Manifest:
    """Returns the manifest of the rows of one or several tables.

    `found` is what each cell names, `group` the column of groups; for the others see `Manifest`
    and `sources.read_manifest`.

    Raises:
      UserError: the rows contradict each other, or none has a usable file.
    """
    _check_labels(rows)
    if training:
        check_groups(str(source), {(row.label, row.group) for row in rows}, group)
    items, bad = _items(rows, _splits(source, rows, training), finder, found)
    if not items:
        raise UserError(
            f"data.path: none of the files of {str(source)!r} can be used ({len(bad):,}, e.g. "
            f"{bad[0].path!r}: {bad[0].reason}); paths are relative to {str(finder.root)!r}; "
            "set data.root to the folder of the files, or data.file_column to their column"
        )
    kind = common_kind(source, items)
    if kind == "image" and any(item.start is not None for item in items):
        raise UserError(f"data.path: {str(source)!r} has segments of images; list each image once")
    notes = (*notes, *_search_notes(finder, {row.cell for row in rows}, found))
    return file_manifest(source, finder.root, kind, items, left_out or {}, bad, training, notes)


def _items(
    rows: Sequence[Row], splits: Sequence[str], finder: Finder, found: Mapping[str, Found]
) -> tuple[list[Item], list[Bad]]:
    """Returns the items of the rows with a usable file, and the other files."""
    items, bad, taken, first_rows = [], {}, {}, {}
    for row, split in zip(rows, splits, strict=True):
        path, problem = _file(row, finder, found[row.cell])
        first = taken.setdefault((path, row.start, row.end), row)
        if first is not row:
            raise _listed_again(row, first)
        other, given = first_rows.setdefault(path, (row, split))
        if given != split:
            raise UserError(
                f"{row.at} gives {path!r} the split {split!r}, but {other.place} {given!r}; keep "
                "all rows of a file in one split"
            )
        if problem:
            bad[path] = Bad(path, problem)
        else:
            items.append(Item(path, row.label, row.group, split, row.start, row.end))
    return items, list(bad.values())


def segment(
    table: Table, number: int, start: tuple[int, str], end: tuple[int, str]
) -> tuple[float, float]:
    """Returns the start and end of a row in seconds, given their (column, cell).

    A comma is a decimal sign unless it separates the fields.
    """
    first, last = (_seconds(table, number, column, text) for column, text in (start, end))
    if last < first:
        raise UserError(
            f"{table.at(number)} has a segment from {first:g} to {last:g} s; its end must be after "
            "its start"
        )
    return first, last


def _seconds(table: Table, number: int, column: int, text: str) -> float:
    try:
        value = float(text if table.delimiter == "," else text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(
            f"{table.at(number)} has {text!r} in column {table.header[column]!r}; expected seconds "
            "from the start of the file, ≥ 0"
        )
    return value


def folder_split(path: str) -> str:
    """Returns the split of the outermost folder of a path whose name stands for one, or ''."""
    return next(filter(None, map(split_of, path.split("/")[:-1])), "")


def _check_labels(rows: Sequence[Row]) -> None:
    for row in rows:
        if not row.label:
            raise UserError(f"{row.at} has no label; fill it in or delete the row")
    if several := several_classes(row.label for row in rows):
        row = next(row for row in rows if row.label == several)
        raise UserError(
            f"{row.at} names several classes, {several!r}; each item has one class (multi-label "
            "sets are not supported): keep one label per row"
        )


def _file(row: Row, finder: Finder, found: Found) -> tuple[str, str]:
    """Returns the path of a row's file, and why it cannot be used; '' if it can."""
    if len(found.paths) > 1:
        one, other, *_ = map(repr, found.paths)
        raise UserError(
            f"{row.at} names {row.cell!r}, but {str(finder.root)!r} holds {len(found.paths)} such "
            f"files, {one} and {other}; write their paths into the table, or set data.root"
        )
    if not found.paths:
        if is_url(row.cell):
            raise UserError(
                f"{row.at} names {row.cell!r}, but files must be local; download them and set "
                "data.root to their folder"
            )
        return Path(row.cell.replace("\\", "/")).as_posix(), found.problem
    path = found.paths[0]
    return path, "" if kind_of(path) else "not an image or recording"


def _listed_again(row: Row, first: Row) -> UserError:
    segment, hint = f" from {row.start} to {row.end} s", ""
    if row.start is None:
        segment = ""
        if names := time_columns(row.table):
            start, end = (shlex.quote(name) for name in names)
            hint = f", or set data.start_column={start} data.end_column={end} for segments"
    return UserError(
        f"{row.at} lists {row.cell!r}{segment} again (first in {first.place}); keep one{hint}"
    )


def _splits(source: Path, rows: Sequence[Row], training: bool) -> list[str]:
    """Returns the split of each row; '' for training rows if no row is in val."""
    texts = {row.split for row in rows}
    known = {text: SPLIT_OF_NAME.get(text.lower()) or split_of(text) for text in texts}
    for row in rows:
        if row.split and not known[row.split]:
            raise UserError(
                f"{row.at} has the split {row.split!r}; expected train, val, test or nothing"
            )
    splits = [known[row.split] for row in rows]
    if not training:
        return splits
    given = set(splits) - {"test"}
    if "" in given and len(given) > 1:
        raise UserError(
            f"{rows[splits.index('')].at} has no split while others are train or val; "
            "fill in all of them or none"
        )
    if given <= {"val"}:
        raise UserError(
            f"data.path: {str(source)!r} has no rows for training; the split of some must be train"
        )
    return ["" if split == "train" and "val" not in given else split for split in splits]


def _search_notes(finder: Finder, cells: set[str], found: Mapping[str, Found]) -> list[str]:
    """Returns lines about files that were not where their cells say."""
    notes = []
    there = [cell for cell in cells if found[cell].paths]
    if searched := sum(found[cell].searched for cell in there):
        notes.append(
            f"{searched:,} of {count(len(cells), 'file')} were found by searching for their names "
            f"below {str(finder.root)!r}"
        )
    if short := [cell for cell in there if found[cell].short]:
        path = found[min(short)].paths[0]
        what = "file is" if len(short) == 1 else "files are"
        notes.append(f"{len(short):,} {what} named without suffix: {min(short)!r} is {path!r}")
    return notes
