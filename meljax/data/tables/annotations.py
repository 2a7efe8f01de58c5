"""Reads Raven selection tables and Audacity label files: labeled segments of recordings."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from meljax.config import DataConfig
from meljax.data.file_tree import Tree
from meljax.data.manifest import Manifest, kind_of
from meljax.data.split_names import split_of
from meljax.data.tables.columns import find_column, listed
from meljax.data.tables.find_files import Finder, Found, files_root
from meljax.data.tables.read_table import Table, read_table, read_text
from meljax.data.tables.rows import Row, folder_split, manifest_of, segment
from meljax.util.errors import UserError
from meljax.util.files import decode_text
from meljax.util.phrases import count

_RAVEN, _AUDACITY = "Raven selection table", "Audacity label file"
_SUFFIXES = (".txt", ".tsv", ".csv")
_TIMES = ("Begin Time (s)", "End Time (s)")
_LABEL_COLUMNS = (
    *("label", "annotation", "annotations", "species", "call type", "call_type", "common name"),
    *("species code", "code", "class", "type", "tags"),
)
_LABEL_LINE = re.compile(r"-?\d+([.,]\d+)?\t-?\d+([.,]\d+)?\t(?P<label>[^\t]*)")
_ENDING = re.compile(
    r"(\.Table\.\d+)?(\.BirdNET)?([._ -]?(selections?|labels?|annotations?)(\.tables?)?)?$",
    re.IGNORECASE,
)
"""What names of annotation files have after the name of the recording."""

_SNIFFED = 20
"""Number of other text files after which a folder is not searched for annotations any more.

Those that are named like a recording come first.
"""


def scan_annotation_file(file: Path, data: DataConfig, training: bool) -> Manifest | None:
    """Returns the manifest of an annotation file; `None` if it is none.

    A recording is found by the name in the annotations, or by the name of the file. Time without
    a label is not used.
    """
    kinds = {file.name: _kind(file, named=True)}
    if not kinds[file.name] or _is_for_tables(data):
        return None
    finder = Finder(files_root(data, file.parent))
    return _scan(file, file.parent, kinds, finder, data, training)


def scan_annotation_folder(
    folder: Path, tree: Tree, data: DataConfig, training: bool
) -> Manifest | None:
    """Returns the manifest of a folder with annotation files; `None` if it has none."""
    kinds = _annotations(folder, tree)
    if not kinds or _is_for_tables(data):
        return None
    finder = Finder(files_root(data, folder), None if data.root else tree)
    return _scan(folder, folder, kinds, finder, data, training)


def _is_for_tables(data: DataConfig) -> bool:
    return bool(data.file_column or data.start_column or data.end_column)


def _scan(
    source: Path,
    folder: Path,
    kinds: Mapping[str, str],
    finder: Finder,
    data: DataConfig,
    training: bool,
) -> Manifest:
    """Returns the manifest of annotation files, given the kind of each by its path."""
    found, rows, dropped, sizes, labels = {}, [], [], {}, {}
    keys = data if training else dataclasses.replace(data, split_column="")
    for name, kind in kinds.items():
        table = read_table(folder / name) if kind == _RAVEN else _audacity(folder / name)
        given = data.label if kind == _RAVEN or (training and _RAVEN not in kinds.values()) else ""
        label = _label_column(table, given or "label")
        labels |= {table.header[label]: None} if kind == _RAVEN else {}
        these = _rows(os.path.dirname(name), table, label, keys, finder, found, dropped)
        sizes.setdefault(kind, []).append(len(these))
        rows += these
    notes = [f"column {name!r} of Raven tables holds the classes" for name in labels]
    notes += [f"read {count(len(n), k)} with {count(sum(n), 'segment')}" for k, n in sizes.items()]
    if not rows:
        raise UserError(
            f"data.path: {str(source)!r} has no labeled segments; {'; '.join(notes)}, "
            f"{len(dropped)} without label or duration"
        )
    left_out = {"segments without label or duration": len(dropped)} if dropped else {}
    if source == folder:
        used = {each for row in rows for each in found[row.cell].paths}
        left_out |= finder.left_out(used, kinds)
        unused = sum(kind_of(each) == "audio" and each not in used for each in finder.tree.files)
        notes += [f"{count(unused, 'recording')} without labeled segments left out"] * bool(unused)
        rows = [row._replace(split=row.split or folder_split(row.cell)) for row in rows]
        above = {row.cell.split("/")[-2] for row in rows if "/" in row.cell}
        if len(above) > 1 and not any(map(split_of, above)):
            names = ", ".join(map(repr, sorted(above)[:5])) + (", …" if len(above) > 5 else "")
            notes.append(f"labels come from the annotation files, not from the folders {names}")
    return manifest_of(source, rows, finder, found, training, data.group, notes, left_out)


def _annotations(folder: Path, tree: Tree) -> dict[str, str]:
    """Returns the kind of each annotation file in a folder; {} if its sub-folders are classes.

    They are classes if most recordings have no label file.

    Raises:
      UserError: there are class folders and a few Raven tables.
    """
    recordings = [path for path in tree.files if kind_of(path) == "audio"]
    stems = {os.path.splitext(os.path.basename(path))[0] for path in recordings}

    def unlikely(path: str) -> bool:
        name = os.path.basename(path)
        return "selection" not in name.lower() and stems.isdisjoint(_stems(name))

    texts = [path for path in tree.others if path.lower().endswith(_SUFFIXES)]
    kinds = {}
    for number, path in enumerate(sorted(texts, key=lambda path: (unlikely(path), path))):
        if kind := _kind(folder / path):
            kinds[path] = kind
        elif not kinds and number >= _SNIFFED:
            break
    kinds = dict(sorted(kinds.items()))
    parts = ([part for part in path.split("/")[:-1] if not split_of(part)] for path in recordings)
    classes = {above[0] for above in parts if above}
    if len(classes) < 2 or 2 * len(kinds) >= len(recordings):
        return kinds
    raven = [name for name, kind in kinds.items() if kind == _RAVEN]
    if any(_names_recordings(folder / name) for name in raven):
        return kinds
    if raven:
        raise UserError(
            f"data.path: {str(folder)!r} holds class folders and a few Raven tables, e.g. "
            f"{raven[0]!r}; name a table to read it, or move the tables away"
        )
    return {}


def _stems(name: str) -> list[str]:
    """Returns the stems of recordings that an annotation file of this name may belong to."""
    stem = os.path.splitext(name)[0]
    return [each for each in (stem, _ENDING.sub("", stem)) if os.path.basename(each)]


def _names_recordings(file: Path) -> bool:
    """Returns whether a Raven table has a column with recordings, so that it may list many."""
    with open(file, "rb") as opened:
        head = decode_text(opened.read(4096), errors="replace").lower()
    return "begin file" in head or "begin path" in head


def _kind(file: Path, named: bool = False) -> str:
    """Returns what kind of annotations a file holds, by its first line; '' if none.

    Numbers in the third column are labels only in a file that the user `named`: they may be
    measurements, such as a pitch.
    """
    if not file.name.lower().endswith(_SUFFIXES) or file.name.startswith("."):
        return ""
    if not os.path.isfile(file):  # a pipe would block, a dangling link cannot be read
        return ""
    with open(file, "rb") as opened:
        head = decode_text(opened.read(4096), errors="replace")
    first = head.lstrip("\r\n").partition("\n")[0]
    if all(name.lower() in first.lower() for name in _TIMES):
        return _RAVEN
    line = _LABEL_LINE.fullmatch(first.rstrip("\r"))
    is_label = line and (named or not re.fullmatch(r"[-+\d.,e\s]+", line["label"]))
    return _AUDACITY if file.suffix.lower() == ".txt" and is_label else ""


def _audacity(file: Path) -> Table:
    """Returns an Audacity label file as a table with Raven's columns."""
    lines = enumerate(re.split(r"\r\n|\r|\n", read_text(file)), 1)
    rows = [(n, line.split("\t", 2)) for n, line in lines if line.strip() and line[0] != "\\"]
    rows = [(n, [*map(str.strip, cells), "", ""][:3]) for n, cells in rows]
    return Table(file, (*_TIMES, "label"), rows, "\t")


def _label_column(table: Table, name: str) -> int:
    for each in _LABEL_COLUMNS if name == "label" else (name,):
        if (index := find_column(table, "data.label", each, optional=True)) is not None:
            return index
    raise UserError(
        f"data.label: {str(table.file)!r} has no column {name!r}; set data.label to the column of "
        f"classes; {listed(table)}"
    )


def _rows(
    above: str,
    table: Table,
    label: int,
    data: DataConfig,
    finder: Finder,
    found: dict[str, Found],
    dropped: list[int],
) -> list[Row]:
    """Returns the segments with a label and a duration; adds the lines of others to `dropped`."""
    names = ("Selection", "Begin Path", "Begin File", "File Offset (s)")
    columns = [find_column(table, "data.path", name, optional=True) for name in names]
    default = data.group in ("", "group")
    columns.append(find_column(table, "data.group", data.group, optional=default))
    split = data.split_column or "split"
    columns.append(find_column(table, "data.split_column", split, optional=not data.split_column))
    start, end = (find_column(table, "data.path", name) for name in _TIMES)
    stems = [os.path.join(above, stem) for stem in _stems(table.file.name)]
    rows = {}
    for number, cells in table.rows:
        view, path, file, offset, group, split = ("" if i is None else cells[i] for i in columns)
        first, last = segment(table, number, (start, cells[start]), (end, cells[end]))
        if offset and (path or file):  # times count from the first of several recordings
            at, _ = segment(table, number, (columns[3], offset), (columns[3], offset))
            first, last = at, at + last - first
        if not cells[label] or first == last:
            dropped.append(number)
            continue
        given = [os.path.join(above, name) for name in (path, file) if name]
        cell = _recording(given, stems, finder, found)
        row = Row(table, number, cell, cells[label], group, split, first, last)
        rows.setdefault((view, cell, first, last, cells[label]), row)  # once for all its views
    return list(rows.values())


def _recording(
    given: Sequence[str], stems: Sequence[str], finder: Finder, found: dict[str, Found]
) -> str:
    """Returns the path of the recording that the first possible name leads to, or else a name.

    The name of the annotation file counts only if there is no name in it: a recording that is named
    but missing must not be mistaken for another one.
    """
    for cell in given or stems:
        if cell not in found:
            found[cell] = finder.find(cell) if given else _beside(cell, finder)
        paths = found[cell].paths
        if len(paths) == 1:
            found.setdefault(paths[0], found[cell]._replace(short=False))
            return paths[0]
        if paths:
            return cell
    return (given or stems)[-1]


def _beside(stem: str, finder: Finder) -> Found:
    """Returns the recordings that the name of an annotation file leads to.

    If there are recordings in the folder of the annotation file, only these are considered.
    """
    found = finder.find(stem)
    recordings = [path for path in found.paths if kind_of(path) == "audio"]
    if found.searched and finder.tree.direct[os.path.dirname(stem)]:
        recordings = []
    problem = "no recording of this name; an annotation file is named like its recording"
    return found._replace(paths=recordings, problem=problem)
