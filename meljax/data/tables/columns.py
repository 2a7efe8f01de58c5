"""Finds the columns of a table by the keys or by their usual names."""

import shlex
from collections.abc import Collection
from typing import NamedTuple

from meljax.config import DataConfig
from meljax.data.tables.find_files import Finder, normal
from meljax.data.tables.read_table import Table
from meljax.util.errors import UserError
from meljax.util.phrases import nearest

_FILE_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "audio", "audio_path"),
    *("audio_file", "audio_filename", "audio_filepath", "recording", "image", "image_path"),
    *("image_file", "image_name", "img"),
    *("wav", "wav_path", "wav_file", "slice_file_name", "fname", "relative_path", "clip", "sound"),
    *("file name", "file path", "name", "clip_id", "file_id", "id"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "class_name", "category", "species", "target"),
    *(
        "primary_label",
        "scene_label",
        "event_label",
        "common_name",
        "genre",
        "emotion",
        "diagnosis",
    ),
    *("instrument", "language", "accent", "gender", "speaker", "word", "tag"),
)
"""Usual names of columns with classes, in lower case."""
_TIME_COLUMNS = (
    *(("start", "end"), ("start_time", "end_time"), ("start_s", "end_s"), ("onset", "offset")),
    *(("begin", "end"), ("begin_time", "end_time"), ("start_seconds", "end_seconds")),
    *(("start_sec", "end_sec"), ("start time", "end time"), ("tmin", "tmax"), ("t0", "t1")),
    *(("begin time (s)", "end time (s)"), ("start (s)", "end (s)"), ("start", "stop")),
)
"""Usual names of columns with the start and end of segments, in lower case."""
_SAMPLES = 50
"""Number of rows whose files are looked for to choose a column."""

_LISTED = 20
"""Number of columns that a message lists."""


class Columns(NamedTuple):
    """The index of each column that is used; `None`: there is none."""

    path: int
    label: int | None  # `None` only if it is optional
    group: int | None
    split: int | None
    start: int | None
    end: int | None


def find_column(table: Table, key: str, name: str, optional: bool = False) -> int | None:
    """Returns the index of a column: of that name, or else but for case, spaces and quotes.

    Args:
      key: the setting that names it, for messages.
      optional: returns `None` if there is none.

    Raises:
      UserError: there is none, or more than one.
    """
    matches = [i for i, each in enumerate(table.header) if name and each == name]
    matches = matches or [i for i, each in enumerate(table.header) if name and _same(each, name)]
    if len(matches) == 1:
        return matches[0]
    if optional and not matches:
        return None
    problem = f"no column {name!r}{nearest(name, table.header)}"
    if matches:
        problem = f"more than one column {name!r}"
    raise UserError(f"{key}: {str(table.file)!r} has {problem}; {listed(table)}")


def time_columns(table: Table) -> tuple[str, str] | None:
    """Returns the names of columns that probably hold the start and end of segments, or `None`."""
    names = {_plain(each): each for each in table.header}
    pairs = (pair for pair in _TIME_COLUMNS if names.keys() >= {*pair})
    return next(((names[start], names[end]) for start, end in pairs), None)


def listed(table: Table) -> str:
    """Returns a phrase with the columns of a table."""
    more = len(table.header) - _LISTED
    names = ", ".join(map(repr, table.header[:_LISTED])) + (f" and {more} more" * (more > 0))
    return f"its columns are {names}"


def find_columns(
    table: Table, data: DataConfig, finder: Finder, label_needed: bool = True
) -> Columns:
    """Returns the columns that the keys or the usual names select; raises `UserError`."""
    label = find_column(table, "data.label", data.label, optional=True)
    if label is None and label_needed:
        _check_header(table, finder)
        raise _no_label(table, data.label)
    group = find_column(table, "data.group", data.group, optional=data.group in ("", "group"))
    if label is not None and group == label:
        raise UserError(
            f"data.group and data.label both name column {table.header[label]!r}, so each class "
            "could be in one split only; name another column or set data.group=''"
        )
    given = bool(data.start_column or data.end_column)
    split = data.split_column or "split"
    others = (
        group,
        find_column(table, "data.split_column", split, optional=not data.split_column),
        find_column(table, "data.start_column", data.start_column or "start", optional=not given),
        find_column(table, "data.end_column", data.end_column or "end", optional=not given),
    )
    return Columns(_file_column(table, data.file_column, finder, (label, *others)), label, *others)


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return normal(name).strip("\ufeff\"' \t").casefold()


def _no_label(table: Table, name: str) -> UserError:
    usual = [each for each in table.header if _plain(each) in LABEL_COLUMNS]
    hint = ""
    if name == "label" and usual:
        hint = "; set " + " or ".join(shlex.quote(f"data.label={each}") for each in usual)
    return UserError(
        f"data.label: {str(table.file)!r} has no column {name!r}{nearest(name, table.header)}"
        f"{hint}; {listed(table)}"
    )


def _file_column(
    table: Table, name: str, finder: Finder, taken: Collection[int | None]
) -> int | None:
    """Returns the column of files: the one named, or the usual one whose files are found best."""
    if name:
        return find_column(table, "data.file_column", name)
    plain = {_plain(each): each for i, each in enumerate(table.header) if i not in taken}
    usual = [plain[each] for each in _FILE_COLUMNS if each in plain]
    if not usual:
        _check_header(table, finder)
        raise _no_files(table, finder)
    if len(usual) > 1:
        usual.sort(key=lambda each: -_names_files(table, each, finder))
    return find_column(table, "data.file_column", usual[0])


def _names_files(table: Table, name: str, finder: Finder) -> int:
    """Returns how well a column names files, by a sample of its cells.

    2: they are paths; 1: they are found by a search or with another suffix; 0: none is found.
    """
    index, step = table.header.index(name), max(1, len(table.rows) // _SAMPLES)
    found = [finder.find(cells[index]) for _, cells in table.rows[::step]]
    quality = (2 - (each.searched or each.short) for each in found if each.paths)
    return max(quality, default=0)


def _check_header(table: Table, finder: Finder) -> None:
    """Raises `UserError` if the first line is not a header but names a file."""
    found = (each for each in table.header if table.delimiter and finder.find(each).paths)
    if file := next(found, ""):
        raise UserError(
            f"data.path: {str(table.file)!r} has no header: its first line names the file "
            f"{file!r}; add a line above it such as path,label"
        )


def _no_files(table: Table, finder: Finder) -> UserError:
    """Returns the error for a table without a usual column of files."""
    names = [each for each in table.header if each and _names_files(table, each, finder)]
    hint = "".join("; set " + shlex.quote(f"data.file_column={each}") for each in names[:1])
    return UserError(
        f"data.file_column: {str(table.file)!r} has no column 'path' or 'file'"
        f"{hint or '; set data.file_column to the column with the files'}; {listed(table)}"
    )
