"""Reads a table that lists files with their class, group, split and segment."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from meljax.config import DataConfig
from meljax.data.manifest import Manifest
from meljax.data.split_names import splits_of
from meljax.data.tables.columns import Columns, find_column, find_columns, time_columns
from meljax.data.tables.find_files import Finder, Found, files_root, is_url
from meljax.data.tables.read_table import Table, read_table
from meljax.data.tables.rows import Row, manifest_of, segment
from meljax.util.errors import UserError
from meljax.util.phrases import count


def scan_table(file: Path, data: DataConfig, training: bool) -> Manifest:
    """Returns the manifest of a table; see `sources.read_manifest`."""
    finder, found = Finder(files_root(data, file.parent)), {}
    rows, notes = read_rows(read_table(file), data, finder, found)
    unlisted = finder.unlisted(path for each in found.values() for path in each.paths)
    return manifest_of(file, rows, finder, found, training, data.group, notes, unlisted)


def read_rows(
    table: Table,
    data: DataConfig,
    finder: Finder,
    found: dict[str, Found],
    prefix: str = "",
    label_needed: bool = True,
) -> tuple[list[Row], list[str]]:
    """Returns the rows of a table, and notes about its layout.

    What each cell names is added to `found`. `prefix` is the folder that the files are relative to;
    `label_needed`: a column of labels is required.

    Raises:
      UserError: a column is missing, or a cell is empty.
    """
    if not table.rows:
        raise UserError(
            f"data.path: {str(table.file)!r} has no rows; expected a header and one row per file"
        )
    columns = find_columns(table, data, finder, label_needed)
    name, cells = table.header[columns.path], []
    for number, fields in table.rows:
        cell = fields[columns.path]
        if not cell:
            raise UserError(f"{table.at(number)} has no {name}; fill it in or delete the row")
        cells.append(os.path.join(prefix, cell) if prefix and not is_url(cell) else cell)
    found.update(finder.find_all(cells))
    notes = [f"{table.file.name}: read with {table.separators}"] * bool(table.separators)
    if name != "path" and not data.file_column:
        notes.append(f"{table.file.name}: column {name!r} names the files")
    if not (data.start_column or data.end_column):
        files = {found[cell].paths[0] if found[cell].paths else cell for cell in cells}
        columns, more = _default_segments(table, columns, files)
        notes += more
    elif columns.start is not None and columns.end is not None:
        names = [table.header[columns.start], table.header[columns.end]]
        notes.append(_segment_note(names, len(set(cells))))
    notes += _unused_splits(table, columns, data.group)
    pairs = zip(table.rows, cells, strict=True)
    return [_row(table, *row, columns, cell) for row, cell in pairs], notes


def _unused_splits(table: Table, columns: Columns, group: str) -> list[str]:
    """Returns a note for each unused column whose values, except at most one, are splits.

    Raises:
      UserError: the column of groups, which is not named by a key, has splits.
    """
    notes = []
    for index, name in enumerate(table.header):
        values = {cells[index] for _, cells in table.rows[:1000] if index < len(cells)}
        known = splits_of(values)
        if len(set(known.values())) < 2 or len(known) < len(values - {""}) - 1:
            continue
        if index == columns.group and group == "group":
            raise UserError(
                f"data.group: column {name!r} of {str(table.file)!r} holds splits, not groups; set "
                f"data.split_column={name} data.group='', or name another column of groups"
            )
        if index not in columns:
            notes.append(f"column {name!r} has splits; to use them, set data.split_column={name}")
    return notes


def _default_segments(
    table: Table, columns: Columns, files: Collection[str]
) -> tuple[Columns, list[str]]:
    """Returns the columns and notes. If each file has one row, start and end are removed."""
    names = [table.header[each] for each in (columns.start, columns.end) if each is not None]
    if len(files) < len(table.rows):
        if not names:
            return columns, []
        find_column(table, "data.start_column", "start")  # raises an error if it is missing
        find_column(table, "data.end_column", "end")
        notes = [_segment_note(names, len(files))]
        return columns, notes
    names = time_columns(table) or names
    if not names:
        return columns, []
    what = f"columns {names[0]} and {names[1]} are" if names[1:] else f"column {names[0]} is"
    return columns._replace(start=None, end=None), [f"{what} ignored: each file has one row"]


def _segment_note(names: Sequence[str], files: int) -> str:
    return f"each row is a segment ({' to '.join(names)}) of one of {count(files, 'file')}"


def _row(table: Table, number: int, fields: list[str], columns: Columns, cell: str) -> Row:
    _, label, group, split, start, end = ("" if each is None else fields[each] for each in columns)
    if columns.start is None or columns.end is None:
        return Row(table, number, cell, label, group, split)
    times = segment(table, number, (columns.start, start), (columns.end, end))
    if times[0] == times[1]:
        raise UserError(f"{table.at(number)} has a segment without duration, at {times[0]:g} s")
    return Row(table, number, cell, label, group, split, *times)
