"""Reads folders with Hugging Face's metadata.csv or metadata.jsonl (audiofolder, imagefolder)."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from meljax.config import DataConfig
from meljax.data.file_tree import Tree, join
from meljax.data.folder import scan_folder
from meljax.data.manifest import Manifest
from meljax.data.split_names import split_of
from meljax.data.tables.columns import listed
from meljax.data.tables.find_files import Finder, files_root
from meljax.data.tables.read_table import Table, read_table
from meljax.data.tables.rows import Row, folder_split, manifest_of
from meljax.data.tables.scan_table import read_rows
from meljax.util.errors import UserError
from meljax.util.files import decode_text
from meljax.util.phrases import count

_NAMES = ("metadata.csv", "metadata.jsonl")


def scan_metadata(folder: Path, tree: Tree, data: DataConfig, training: bool) -> Manifest | None:
    """Returns the manifest of a folder with metadata; `None` if it has none.

    The metadata are at the root or in each split folder, and have a column file_name (or the one
    that `data.file_column` names). Without a column of labels, the labels are the class folders.
    """
    tables = _tables(folder, tree, data.file_column)
    if not tables:
        return None
    finder = Finder(files_root(data, folder), None if data.root else tree)
    found, rows, notes = {}, [], []
    for prefix, table in tables:
        keys = dataclasses.replace(data, file_column=_file_column(table, data.file_column))
        these, more = read_rows(table, keys, finder, found, prefix, data.label != "label")
        splits = (folder_split((*found[row.cell].paths, row.cell)[0]) for row in these)
        given = data.split_column or "split"
        if folder_split(prefix) or given.lower() not in map(str.lower, table.header):
            these = [row._replace(split=s) for row, s in zip(these, splits, strict=True)]
        rows += these
        notes += more
    used = {path: row for row in rows for path in found[row.cell].paths}
    names = [prefix + table.file.name for prefix, table in tables]
    read = f"read {' and '.join(names)}"
    if not any(row.label for row in rows):
        return _class_folders(folder, tree, data, training, used, tables[0][1], read)
    left_out = finder.left_out(used, names)
    unlisted = [path for path in finder.tree.files if path not in used]
    if unlisted:
        notes.append(f"{count(len(unlisted), 'file')} not listed, e.g. {unlisted[0]!r}, left out")
    notes = [read, *notes]
    return manifest_of(folder, rows, finder, found, training, data.group, notes, left_out)


def _tables(folder: Path, tree: Tree, file_column: str) -> list[tuple[str, Table]]:
    """Returns (prefix of paths, table) of the metadata: of the split folders, else of their parent.

    These are searched in `folder`, and below it as long as there is one sub-folder only.
    """
    candidates = defaultdict(list)
    for path in tree.others:
        above, _, name = path.rpartition("/")
        if name.lower() in _NAMES and os.path.isfile(folder / path):
            candidates[above].append(path)
    base, names = "", tree.filled("")
    while candidates:
        splits = (join(base, name) for name in sorted(names) if split_of(name))
        for places in (splits, (base,)):
            tables = [
                (join(above, ""), table)
                for above in places
                for table in _read_tables(folder, candidates.get(above, ()), file_column)
            ]
            if tables:
                return tables
        if len(names) != 1 or split_of(names[0]):
            break
        base = join(base, names[0])
        names = tree.filled(base)
    for above in candidates:
        if tree.direct[above] and _read_tables(folder, candidates[above], file_column):
            raise UserError(
                f"data.path: {str(folder)!r} has {Path(candidates[above][0]).name} in {above!r}, "
                "which is not a split folder; name that folder in data.path, or move the metadata "
                "and their files into one folder"
            )
    return []


def _read_tables(folder: Path, paths: Sequence[str], file_column: str) -> list[Table]:
    """Returns the table of a folder, if one of its files `paths` is metadata."""
    files = [
        folder / path for path in paths if _mentions(folder / path, file_column or "file_name")
    ]
    if len(files) > 1:
        raise UserError(
            f"data.path: {str(files[0].parent)!r} holds {files[0].name!r} and {files[1].name!r}; "
            "keep one"
        )
    return [table for table in map(read_table, files) if _file_column(table, file_column)]


def _mentions(file: Path, column: str) -> bool:
    """Tells whether a file may have a column, by its start; others need not be readable."""
    with open(file, "rb") as opened:
        head = decode_text(opened.read(4096), errors="replace")
    return column.lower() in head.lower()


def _file_column(table: Table, name: str) -> str:
    """Returns the name of the column with files; '' if these are not such metadata."""
    if name:
        return name if name in table.header else ""
    names = sorted(table.header, key=len)  # 'file_name' before 'original_file_name'
    return next((each for each in names if each.lower().endswith("file_name")), "")


def _class_folders(
    folder: Path,
    tree: Tree,
    data: DataConfig,
    training: bool,
    rows: Mapping[str, Row],
    table: Table,
    read: str,
) -> Manifest:
    """Returns the manifest of class folders, with the groups of the metadata's rows by path."""
    names = {path.split("/")[-2] for path in rows if "/" in path}
    if len([name for name in names if not split_of(name)]) < 2:
        raise UserError(
            f"data.label: {str(table.file)!r} has no column {data.label!r}; set data.label to the "
            f"column of classes; {listed(table)}"
        )
    manifest = scan_folder(folder, tree, dataclasses.replace(data, group="group"), training)
    groups = [rows[item.path].group if item.path in rows else "" for item in manifest.items]
    items = (dataclasses.replace(i, group=g) for i, g in zip(manifest.items, groups, strict=True))
    note = f"{read}, which has no column {data.label!r}: the folders are the classes"
    return dataclasses.replace(manifest, items=tuple(items), notes=(*manifest.notes, note))
