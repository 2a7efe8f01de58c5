"""A folder or a CSV → a checked table of files with label, group and split; reads names only."""

import csv
import difflib
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meljax.errors import BadFileError, UserError

KINDS: dict[str, Literal["image", "sound"]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"), "sound"),
    **dict.fromkeys((".aif", ".aiff", ".aifc"), "sound"),
}
NOUNS = {"image": "picture", "sound": "recording"}
COARSE_NS = 2_000_000_000
"""Within which a file system may give two writings the same time."""
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Item:
    """One file of the table. An empty `group` stands alone; an empty `split` is to be decided."""

    path: str  # relative to the root unless a CSV gave it absolute, with '/' between the parts
    label: str
    group: str = ""
    split: str = ""  # 'train', 'val', 'test' or ''


@dataclass(frozen=True)
class Bad:
    """Something that was promised and cannot be used."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a path holds: files of one kind in two classes or more, and what was left out."""

    root: str  # that the paths are relative to; '' where they name no files
    kind: Literal["image", "sound"]
    items: tuple[Item, ...]  # sorted by path
    ignored: int  # files of other kinds; a hidden folder counts as one
    bad: tuple[Bad, ...]  # sorted by path
    read: Callable[[Item], bytes]  # an item's content; may raise BadFileError
    stamp: Callable[[Item], str]  # changes with the content; '' where it may do so unseen
    warnings: tuple[str, ...] = ()  # one line each


def scan(path: str, label: str = "label", group: str = "group", training: bool = True) -> Listing:
    """List the pictures or recordings of a folder or a CSV, without opening any of them.

    Args:
      path: a folder with one sub-folder per class, or with `train`, `val` and `test` that hold
        such folders; or a CSV with the columns `path`, `label` and, if wanted, `group`, `split`.
      label: the CSV's column with the class.
      group: the CSV's column with what must not be on two sides, such as the speaker. The default
        may be absent from the CSV; '' means no groups.
      training: whether there must be enough to train on: files to learn from, of two classes.

    Raises:
      UserError: the path, its layout or the CSV cannot be used; the message says why.
    """
    if not path:
        raise UserError("data.path is empty; name a folder or a CSV")
    root = Path(os.path.expanduser(path))
    try:
        if root.is_dir():
            _refuse_columns(root, label, group)
            _refuse_set(root)
            return _scan_folder(root, training)
        if root.is_file() and root.suffix.lower() == ".csv":
            return _scan_csv(root, label, group, training)
        problem = "is neither a folder nor a .csv file" if root.exists() else "does not exist"
        raise UserError(
            f"data.path: {path!r} {problem}; name a folder with one sub-folder per class, a CSV, or"
            " a TFDS set as tfds:NAME"
        )
    except OSError as error:
        raise UserError(
            f"data.path: {error.filename or path!r} cannot be read ({error.strerror});"
            " check its permissions"
        ) from error


def _refuse_columns(root: Path, label: str, group: str) -> None:
    for key, value, default in (
        ("data.label", label, ("label",)),
        ("data.group", group, ("", "group")),
    ):
        if value not in default:
            tables = sorted(str(file) for file in root.glob("*.csv"))
            hint = f"; did you mean data.path={tables[0]!r}?" if tables else ""
            raise UserError(
                f"{key}={value!r} names a column of a CSV,"
                f" but data.path {str(root)!r} is a folder{hint}"
            )


def _refuse_set(root: Path) -> None:
    if (root / "dataset_info.json").is_file():
        raise UserError(
            f"data.path: {str(root)!r} is a TFDS set; name it as tfds:NAME, with data.tfds_dir for"
            " the folder in which NAME lies"
        )


# Folders


def _scan_folder(root: Path, training: bool) -> Listing:
    sides = _given_sides(root, training)
    depth = 2 if sides else 1  # the class is the first or the second part of a path
    found, loose, others, bad = [], [], [], []
    for path, kind in walk(str(root)):
        parts = path.split("/")
        if kind == "missing":
            bad.append(Bad(path, "no such file"))
        elif kind == "other":
            others.append(path)
        elif len(parts) <= depth:
            loose.append(path)
        else:
            found.append((Item(path, parts[depth - 1], split=sides.get(parts[0], "")), kind))
    for side in sides or [""]:
        if not any(item.path.startswith(side) for item, _ in found):
            raise _nothing_found(root, side, loose, others)
    kind = _one_kind(root, found)
    filled = {"/".join(item.path.split("/")[:depth]) for item, _ in found}
    empty = (folder for folder in _class_folders(root, sides) if folder not in filled)
    bad.extend(Bad(folder, f"class folder holds no {NOUNS[kind]}") for folder in empty)
    if training:
        _check_folder_classes(root, filled)
    return _listing(root, root, kind, found, len(loose) + len(others), bad, training)


def walk(
    folder: str, prefix: str = "", above: tuple = (), unreadable: list[OSError] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (relative path, 'image' | 'sound' | 'missing' | 'other') for all that lies below.

    A folder that cannot be read raises `OSError`, or is left out and noted in `unreadable`.
    """
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that holds it
            return
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if unreadable is None:
            raise
        unreadable.append(error)
        return
    for entry in ordered:
        path = prefix + entry.name
        kind = kind_of(entry.name)
        if _hidden(entry.name):
            yield path, "other"
        elif os.path.isdir(entry.path):  # false, not an error, for a link to itself
            yield from walk(entry.path, path + "/", (*above, here), unreadable)
        elif kind and os.path.isfile(entry.path):
            yield path, kind
        else:
            yield path, "missing" if kind and entry.is_symlink() else "other"


def read_file(path: str) -> bytes:
    """Returns what a file holds.

    Raises:
      BadFileError: it is none, or cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would keep us waiting
            raise BadFileError("not a file")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadFileError(error.strerror or str(error)) from None


def stamp(path: str) -> str:
    """Returns what changes when a file is written or replaced; '' where it may do so unseen.

    Clocks of file systems are coarse: a file that was written a moment ago can be written again
    without a trace.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    last = max(status.st_mtime_ns, status.st_ctime_ns)
    if time.time_ns() - last < COARSE_NS:
        return ""
    facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return "-".join(map(str, facts))


def kind_of(path: str) -> Literal["image", "sound"] | None:
    """Returns what a file is by its suffix; `None` if that is unknown."""
    return KINDS.get(os.path.splitext(path)[1].lower())


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))


def _given_sides(root: Path, training: bool) -> dict[str, str]:
    """Map the folders of a given split to their side; empty where the folders are classes."""
    folders = _subfolders(root)
    sides = {folder: SPLITS.get(folder.lower(), "") for folder in folders}
    train = [folder for folder, side in sides.items() if side == "train"]
    if not train or not all(sides.values()) or not any(_subfolders(root / name) for name in train):
        return {}
    for first, second in itertools.combinations(folders, 2):
        if sides[first] == sides[second]:
            raise UserError(
                f"data.path: {str(root)!r} holds one side twice, as {first!r} and {second!r};"
                " merge them"
            )
    if training and "val" not in sides.values():
        sides[train[0]] = ""
    return sides


def _class_folders(root: Path, sides: Iterable[str]) -> list[str]:
    if not sides:
        return _subfolders(root)
    return [f"{side}/{name}" for side in sides for name in _subfolders(root / side)]


def _nothing_found(root: Path, side: str, loose: Sequence[str], others: Sequence[str]) -> UserError:
    where = f"data.path: {str(root / side)!r}"
    loose = [path for path in loose if path.startswith(side)]
    if loose:
        return UserError(
            f"{where} holds {len(loose)} files directly, such as {loose[0]!r}:"
            " expected one sub-folder per class"
        )
    others = [path for path in others if path.startswith(side)]
    seen = f" among {len(others)} other files, such as {others[0]!r}" if others else ""
    return UserError(
        f"{where} holds no picture or recording{seen}: expected one sub-folder per class with"
        f" {' '.join(KINDS)} files"
    )


def _check_folder_classes(root: Path, filled: Iterable[str]) -> None:
    """Explain a folder around the folder that was meant."""
    only, *more = sorted(filled)
    if not more and _subfolders(root / only):
        raise UserError(
            f"data.path: {str(root)!r} holds files in one sub-folder only, {only!r}:"
            f" expected one sub-folder per class; did you mean {str(root / only)!r}?"
        )


# Tables


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    group: str = ""
    split: str = ""


def _scan_csv(file: Path, label: str, group: str, training: bool) -> Listing:
    (_, header), *table = _read_table(file)
    rows = _rows(file, header, table, _columns(file, header, label, group))
    check_groups(file, rows, group)
    found, bad = [], []
    for row, split in zip(rows, _splits(file, rows, training), strict=True):
        path = Path(row.path).as_posix()
        kind = kind_of(path)
        if not os.path.isfile(file.parent / path):
            bad.append(Bad(path, "no such file"))
        elif not kind:
            bad.append(Bad(path, "not a picture or recording"))
        else:
            found.append((Item(path, row.label, row.group, split), kind))
    if not found:
        raise UserError(
            f"data.path: none of the {len(bad)} files of {str(file)!r} can be used"
            f" ({bad[0].path!r}: {bad[0].reason}); paths are relative to {str(file.parent)!r}"
        )
    return _listing(file.parent, file, _one_kind(file, found), found, 0, bad, training)


def _read_table(file: Path) -> list[tuple[int, list[str]]]:
    """Read (line number, fields) of every row that is not blank; the first is the header."""
    with open(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            table = [
                (reader.line_num, [field.strip() for field in row])
                for row in reader
                if any(map(str.strip, row))
            ]
        except UnicodeDecodeError as error:
            raise UserError(
                f"data.path: {str(file)!r} is not UTF-8 text; save it as CSV UTF-8"
            ) from error
        except csv.Error as error:
            raise UserError(
                f"{_at(file, reader.line_num)} is not CSV ({error}); check its quotes"
            ) from error
    if len(table) < 2:
        raise UserError(
            f"data.path: {str(file)!r} has no rows; expected a header and one row per file"
        )
    return table


def _at(file: Path, line: int) -> str:
    return f"data.path: {str(file)!r}, line {line},"


def _columns(file: Path, header: Sequence[str], label: str, group: str) -> dict[str, int]:
    """Map the fields of a row to their columns; `group` and `split` may be absent."""
    used = {"path": ("data.path", "path"), "label": ("data.label", label)}
    if group and (group != "group" or group in header):
        used["group"] = ("data.group", group)
    if "split" in header:
        used["split"] = ("data.path", "split")
    for key, name in used.values():
        if header.count(name) != 1:
            problem = "more than one column" if name in header else "no column"
            raise UserError(
                f"{key}: {str(file)!r} has {problem} {name!r}{nearest(name, header)};"
                f" its columns, between commas, are {', '.join(map(repr, header))}"
            )
    if group == label and group:
        raise UserError(
            f"data.group and data.label both name column {label!r}: a class could be"
            " on one side only; name another column or set data.group=''"
        )
    return {field: header.index(name) for field, (_, name) in used.items()}


def _rows(
    file: Path,
    header: Sequence[str],
    table: Iterable[tuple[int, list[str]]],
    columns: dict[str, int],
) -> list[_Row]:
    rows, lines = [], {}
    for line, fields in table:
        if len(fields) != len(header):
            raise UserError(
                f"{_at(file, line)} has {len(fields)} fields where the header has {len(header)}"
            )
        row = _Row(line, **{field: fields[column] for field, column in columns.items()})
        if not row.path or not row.label:
            empty = "label" if row.path else "path"
            raise UserError(f"{_at(file, line)} has no {empty}; fill it in or delete the row")
        first = lines.setdefault(os.path.normpath(row.path), line)
        if first != line:
            raise UserError(
                f"{_at(file, line)} lists {row.path!r} again, after line {first}; keep one"
            )
        rows.append(row)
    return rows


def _splits(file: Path, rows: Sequence[_Row], training: bool) -> list[str]:
    """The side of each row; '' for the rows to be divided in training, where no row says val."""
    for row in rows:
        if row.split and row.split.lower() not in SPLITS:
            raise UserError(
                f"{_at(file, row.line)} has the split {row.split!r};"
                " expected train, val, test or nothing"
            )
    splits = [SPLITS.get(row.split.lower(), "") for row in rows]
    if not training:
        return splits
    sides = set(splits) - {"test"}
    if "" in sides and len(sides) > 1:
        line = rows[splits.index("")].line
        raise UserError(
            f"{_at(file, line)} has no split while others say train or val;"
            " fill in all of them or none"
        )
    if sides <= {"val"}:
        raise UserError(
            f"data.path: {str(file)!r} has no row for training; its column 'split' needs train"
        )
    return ["" if split == "train" and "val" not in sides else split for split in splits]


# Both


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ' (the nearest is …)', or nothing where none of `names` is near."""
    near = difflib.get_close_matches(name, sorted(names), n=1)
    return f" (the nearest is {near[0]!r})" if near else ""


def _one_kind(source: Path, found: Sequence[tuple[Item, str]]) -> Literal["image", "sound"]:
    paths = {kind: [item.path for item, its in found if its == kind] for kind in NOUNS}
    if all(paths.values()):
        seen = (f"{len(p)} {NOUNS[kind]}s (such as {p[0]!r})" for kind, p in paths.items())
        raise UserError(f"data.path: {str(source)!r} mixes {' and '.join(seen)}; keep one kind")
    return "image" if paths["image"] else "sound"


def _listing(
    root: Path,
    source: Path,
    kind: Literal["image", "sound"],
    found: Iterable[tuple[Item, str]],
    ignored: int,
    bad: Iterable[Bad],
    training: bool,
) -> Listing:
    items = tuple(sorted((item for item, _ in found), key=lambda item: item.path))
    if training:
        check_classes(source, items)
    bad = tuple(sorted(bad, key=lambda one: one.path))
    return Listing(
        str(root),
        kind,
        items,
        ignored,
        bad,
        read=lambda item: read_file(str(root / item.path)),
        stamp=lambda item: stamp(str(root / item.path)),
    )


def check_groups(source: Path | str, rows: Sequence[Item] | Sequence[_Row], group: str) -> None:
    """Raises `UserError` if the groups, read from `group`, are the classes under another name."""
    labels, groups = {row.label for row in rows}, {row.group for row in rows}
    pairs = {(row.label, row.group) for row in rows}
    if rows and "" not in groups and len(labels) == len(groups) == len(pairs):
        raise UserError(
            f"data.group: {group!r} of {str(source)!r} says the same as the label: a class"
            " could be on one side only; name another or set data.group=''"
        )


def check_classes(source: Path | str, items: Iterable[Item]) -> None:
    """Raises `UserError` unless there are two classes to learn, and none is only scored."""
    labels = {
        side: {item.label for item in items if item.split == side} for side in ("val", "test")
    }
    trained = {item.label for item in items if item.split in ("train", "")}
    if not trained:
        raise UserError(f"data.path: {str(source)!r} holds nothing to train on")
    for side, names in labels.items():
        for name in sorted(names - trained):
            raise UserError(
                f"data.path: {str(source)!r} has class {name!r} in {side} but not in"
                f" train{nearest(name, trained)}"
            )
    if len(trained) < 2:
        raise UserError(
            f"data.path: {str(source)!r} holds files of one class only, {min(trained)!r};"
            " expected at least two"
        )
