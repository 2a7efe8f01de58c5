"""Tables of labels inside or above a folder, to name them in messages."""

import contextlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from meljax.data.file_tree import Tree
from meljax.data.manifest import Item
from meljax.data.split_names import split_of
from meljax.data.tables.columns import LABEL_COLUMNS
from meljax.data.tables.read_table import read_table
from meljax.util.errors import UserError
from meljax.util.files import decode_text
from meljax.util.typed_json import parse_json

_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
TABLE_FOLDERS = ("meta", "metadata", "label", "labels", "annotation", "annotations", "csv", "doc")
TABLE_FOLDERS += ("docs", "json", "txt", "xml", "list", "lists", "splits", "evaluation_setup")
"""Folders that hold tables or texts, in lower case."""
_OURS = frozenset(("predictions.csv", "split.csv"))  # results of meljax
_CLASS_COLUMNS = ("label", "labels", "class", "class_name", "category")
_LEVELS = 2
_MOST = 20  # tables that are looked into in a folder above
_LARGEST = 20_000_000  # bytes of a table that is compared with the folders
_READ = 262_144  # bytes at the start of a table


class NearTable(NamedTuple):
    """A table near a folder."""

    path: str  # as the user may give it
    columns: Sequence[str]
    listed: int  # number of the folder's files that it names
    beside_files: bool  # whether its paths are relative to its own folder


def near_tables(root: Path, tree: Tree) -> list[NearTable]:
    """Returns the tables in `root`, and those above it that name one of its files.

    Both are searched two levels deep or high, above also in folders such as 'metadata'. Tables that
    name files come first.
    """
    inside = [os.path.normpath(root / path) for path in tree.others if path.count("/") <= _LEVELS]
    above = list(_files_above(root))
    paths = [os.path.normpath(path) for path in (*inside, *above) if _is_table(path)]
    if not paths:
        return []
    names = {os.path.basename(path) for path in tree.files}
    names |= {stem for name in names if not (stem := os.path.splitext(name)[0]).isdigit()}
    tables = [_look_into(path, names) for path in paths]
    tables = [each for each in tables if each.listed or each.path in inside]
    tables = [each for each in tables if not _is_metadata(each) or each.path not in inside]
    return sorted(tables, key=_rank)


def hint(root: Path, tables: Sequence[NearTable]) -> str:
    """Returns the settings for the first of the tables, for an error message; '' if none."""
    if not tables:
        return ""
    path, _, listed, beside_files = tables[0]
    keys = [f"data.path={path!r}"]
    if listed and not beside_files:
        keys.append(f"data.root={str(root)!r}")
    if (label := _label_column(tables[0])) not in ("", "label"):
        keys.append(f"data.label={label}")
    return f"; did you mean {' '.join(keys)}?"


def note(tables: Sequence[NearTable], used: str) -> list[str]:
    """Returns a line that says that the tables were not read; `used`: where labels come from."""
    if not tables:
        return []
    more = f" and {len(tables) - 1} more tables were" if len(tables) > 1 else " was"
    return [f"labels come from {used}; {tables[0].path!r}{more} not read"]


def check_same_classes(root: Path, tables: Sequence[NearTable], items: Sequence[Item]) -> None:
    """Raises `UserError` if a table gives the files of most class folders several labels.

    Tables that list less than half of the items, or are above `_LARGEST` bytes, do not count.
    """
    for near in tables:
        column = next((each for each in near.columns if each.lower() in _CLASS_COLUMNS), "")
        if near.listed and column and _contradicts(near, column, items):
            raise UserError(
                f"data.path: {str(root)!r} has class folders, but column {column!r} of "
                f"{near.path!r} gives the files of one folder different classes; to use the "
                f"folders, move that table away{hint(root, [near])}"
            )


def _contradicts(near: NearTable, column: str, items: Sequence[Item]) -> bool:
    """Tells whether the table lists most items, and has several labels for most classes."""
    if os.path.getsize(near.path) > _LARGEST:
        return False
    try:
        table = read_table(Path(near.path))
        index = table.header.index(column)
    except (UserError, ValueError):
        return False
    counts = Counter(os.path.basename(item.path) for item in items)
    folder = {item.path: item.label for item in items}
    named = ((os.path.basename(item.path), item.label) for item in items)
    folder |= {name: label for name, label in named if counts[name] == 1}
    labels, listed = defaultdict(set), 0
    for _, cells in table.rows:
        paths = [cell.replace("\\", "/") for cell in cells]
        found = (each for each in (*paths, *map(os.path.basename, paths)) if each in folder)
        if name := next(found, ""):
            labels[folder[name]].add(cells[index])
            listed += 1
    several = [name for name, each in labels.items() if len(each) > 1]
    return 2 * listed > len(items) and 2 * len(several) > len(labels)


def _rank(table: NearTable) -> tuple:
    """Returns the sort key of tables: the most useful one comes first."""
    held_out = split_of(os.path.splitext(os.path.basename(table.path))[0]) in ("val", "test")
    return not table.listed, not _label_column(table), held_out, -table.listed


def _label_column(table: NearTable) -> str:
    """Returns the column that probably holds the labels; '' if none."""
    return next(
        (name for usual in LABEL_COLUMNS for name in table.columns if name.lower() == usual), ""
    )


def _is_table(path: str) -> bool:
    name = os.path.basename(path)
    usual = name.lower().endswith(_SUFFIXES) and not name.startswith(".") and name not in _OURS
    return usual and os.path.isfile(path)


def _is_metadata(table: NearTable) -> bool:
    """Returns whether it is Hugging Face's table, which is read whenever it is in the folder."""
    name = os.path.basename(table.path).lower()
    return name in ("metadata.csv", "metadata.jsonl") and "file_name" in table.columns


def _files_above(root: Path) -> Iterator[str]:
    here = str(root)
    for _ in range(_LEVELS):
        parent = os.path.normpath(os.path.join(here, ".."))
        if os.path.abspath(parent) == os.path.abspath(here):  # the root of the file system
            return
        here = parent
        yield from _tables_in(here)
        for name in _names(here):
            if name.lower() in TABLE_FOLDERS:
                yield from _tables_in(os.path.join(here, name))


def _names(folder: str) -> Sequence[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return ()


def _tables_in(folder: str) -> list[str]:
    names = sorted(name for name in _names(folder) if name.lower().endswith(_SUFFIXES))
    return [os.path.join(folder, name) for name in names[:_MOST]]


def _look_into(path: str, names: set[str]) -> NearTable:
    """Reads the start of a table; `names`: of the folder's files, with and without suffix."""
    text = ""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        text = decode_text(file.read(_READ), errors="replace")
    first = text.partition("\n")[0]
    columns = [column.strip(' \r"') for column in re.split("[,;\t|]", first)]
    with contextlib.suppress(ValueError):
        if isinstance(row := parse_json(first), dict):
            columns = list(row)
    fields = (field.replace("\\", "/") for field in re.split('[,;\t|"\r\n]+', text))
    found = [field for field in fields if field.rpartition("/")[2] in names]
    beside = os.path.exists(os.path.join(os.path.dirname(path), *found[:1]))
    return NearTable(path, columns, len(found), beside)
