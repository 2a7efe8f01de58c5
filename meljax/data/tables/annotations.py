"""Reads Raven selection tables and Audacity label files: labeled segments of recordings."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from meljax.config import DataConfig
from meljax.data.manifest import Manifest, is_hidden, kind_of
from meljax.data.split_names import split_of
from meljax.data.tables.columns import find_column, listed
from meljax.data.tables.find_files import Finder, Found, files_root
from meljax.data.tables.read_table import UTF16_MARKS, Table, read_table, read_text
from meljax.data.tables.rows import Row, folder_split, manifest_of, segment
from meljax.util.errors import UserError
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
"""Number of other text files after which a folder is not searched for annotations any more."""


def scan_annotations(path: Path, data: DataConfig, training: bool) -> Manifest | None:
    """Returns the manifest of an annotation file or a folder of them; `None` if it is neither.

    A recording is found by the name in the annotations, or by the name of the file. Time without
    a label is not used.
    """
    folder = path if path.is_dir() else path.parent
    kinds = _below(path) if path.is_dir() else {path.name: _kind(path, named=True)}
    if not any(kinds.values()) or data.file_column or data.start_column or data.end_column:
        return None
    finder, found = Finder(files_root(data, folder)), {}
    rows, dropped, sizes, labels = [], [], {}, {}
    for name, kind in kinds.items():
        table = read_table(folder / name) if kind == _RAVEN else _audacity(folder / name)
        label = _label_column(table, data.label if kind == _RAVEN else "label")
        labels |= {table.header[label]: None} if kind == _RAVEN else {}
        these = _rows(os.path.dirname(name), table, label, data.group, finder, found, dropped)
        sizes.setdefault(kind, []).append(len(these))
        rows += these
    notes = [f"column {name!r} of Raven tables holds the classes" for name in labels]
    notes += [f"read {count(len(n), k)} with {count(sum(n), 'segment')}" for k, n in sizes.items()]
    if dropped:
        notes.append(f"{count(len(dropped), 'segment')} without label or duration left out")
    if not rows:
        raise UserError(f"data.path: {str(path)!r} has no labeled segments; {'; '.join(notes)}")
    left_out = {}
    if path.is_dir():
        used = {each for row in rows for each in found[row.cell].paths}
        left_out = finder.left_out(used, kinds)
        unused = sum(kind == "audio" and each not in used for each, kind in finder.walked())
        notes += [f"{count(unused, 'recording')} without labeled segments left out"] * bool(unused)
        rows = [row._replace(split=folder_split(row.cell)) for row in rows]
    return manifest_of(path, rows, finder, found, training, data.group, notes, left_out)


def _below(folder: Path) -> dict[str, str]:
    """Returns the kind of each annotation file in a folder; {} if its sub-folders are classes.

    They are classes if most recordings have no label file.

    Raises:
      UserError: there are class folders and a few Raven tables.
    """
    paths = []
    for above, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not is_hidden(name)]
        prefix = "" if above == str(folder) else os.path.relpath(above, folder) + "/"
        paths += [prefix + name for name in names]
    texts = (path for path in paths if path.lower().endswith(_SUFFIXES))
    kinds = {}
    for number, path in enumerate(sorted(texts, key=lambda p: ("selection" not in p.lower(), p))):
        if kind := _kind(folder / path):
            kinds[path] = kind
        elif not kinds and number >= _SNIFFED:
            break
    if not kinds:
        return {}
    recordings = [path for path in paths if kind_of(path) == "audio"]
    parts = ([part for part in path.split("/")[:-1] if not split_of(part)] for path in recordings)
    classes = {above[0] for above in parts if above}
    if len(classes) > 1 and 2 * len(kinds) < len(recordings):
        raven = [name for name, kind in kinds.items() if kind == _RAVEN]
        if any(_names_recordings(folder / name) for name in raven):
            return dict(sorted(kinds.items()))
        if raven:
            raise UserError(
                f"data.path: {str(folder)!r} holds class folders and a few Raven tables, e.g. "
                f"{raven[0]!r}; name a table to read it, or move the tables away"
            )
        return {}
    return dict(sorted(kinds.items()))


def _names_recordings(file: Path) -> bool:
    """Returns whether a Raven table has a column with recordings, so that it may list many."""
    head = file.read_bytes()[:4096].replace(b"\0", b"").lower()
    return b"begin file" in head or b"begin path" in head


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
        head = opened.read(4096)
    encoding = "utf-16" if head.startswith(UTF16_MARKS) else "utf-8-sig"
    first = head.decode(encoding, errors="replace").lstrip("\r\n").partition("\n")[0]
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
    group: str,
    finder: Finder,
    found: dict[str, Found],
    dropped: list[int],
) -> list[Row]:
    """Returns the segments with a label and a duration; adds the lines of others to `dropped`."""
    names = ("Selection", "Begin Path", "Begin File", "File Offset (s)", group)
    keys = ("data.path",) * 4 + ("data.group",)
    columns = [
        find_column(table, key, name, optional=name in ("", "group") or key != "data.group")
        for key, name in zip(keys, names, strict=True)
    ]
    start, end = (find_column(table, "data.path", name) for name in _TIMES)
    stem = os.path.join(above, table.file.stem)
    stems = [name for name in (stem, _ENDING.sub("", stem)) if os.path.basename(name)]
    rows = {}
    for number, cells in table.rows:
        view, path, file, offset, group = ("" if i is None else cells[i] for i in columns)
        first, last = segment(table, number, (start, cells[start]), (end, cells[end]))
        if offset and (path or file):  # times count from the first of several recordings
            at, _ = segment(table, number, (columns[3], offset), (columns[3], offset))
            first, last = at, at + last - first
        if not cells[label] or first == last:
            dropped.append(number)
            continue
        given = [os.path.join(above, name) for name in (path, file) if name]
        cell = _recording(given, stems, finder, found)
        row = Row(table, number, cell, cells[label], group, "", first, last)
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
            found[cell] = finder.find(cell)
        paths = found[cell].paths
        if len(paths) == 1:
            found.setdefault(paths[0], found[cell]._replace(short=False))
            return paths[0]
        if paths:
            return cell
    return (given or stems)[-1]
