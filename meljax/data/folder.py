"""Reads a folder whose sub-folders are classes, or splits that hold class folders."""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from meljax.data.manifest import (
    KIND_OF_SUFFIX,
    SPLIT_OF_NAME,
    Bad,
    Item,
    Manifest,
    common_kind,
    file_manifest,
    kind_of,
    noun,
)
from meljax.features.frontend import Kind
from meljax.util.errors import UserError


def scan_folder(root: Path, label: str, group: str, training: bool) -> Manifest:
    """Returns the manifest of a folder; see `sources.read_manifest`."""
    _check_settings(root, label, group)
    splits = _given_splits(root, training)
    depth = 2 if splits else 1  # the class is the first or the second part of a path
    items, loose, others, bad = [], [], [], []
    for path, found in walk(str(root)):
        parts = path.split("/")
        if found == "missing":
            bad.append(Bad(path, "no such file"))
        elif found == "other":
            others.append(path)
        elif len(parts) <= depth:
            loose.append(path)
        else:
            items.append(Item(path, parts[depth - 1], split=splits.get(parts[0], "")))
    for split in splits or [""]:
        if not any(item.path.startswith(split) for item in items):
            raise _nothing_found(root, split, loose, others)
    kind = common_kind(root, items)
    filled = {"/".join(item.path.split("/")[:depth]) for item in items}
    folders = _subfolders(root)
    if splits:
        folders = [f"{split}/{name}" for split in splits for name in _subfolders(root / split)]
    empty = (folder for folder in folders if folder not in filled)
    bad.extend(Bad(folder, f"class folder holds no {noun(kind)}") for folder in empty)
    if training:
        _check_depth(root, filled)
    return file_manifest(root, root, kind, items, len(loose) + len(others), bad, training)


def walk(
    folder: str, prefix: str = "", above: tuple = (), unreadable: list[OSError] | None = None
) -> Iterator[tuple[str, Kind | Literal["missing", "other"]]]:
    """Yields (path, kind) of every file below `folder`, following links.

    'missing' is a dangling link to a recording or image, 'other' any other file or a hidden folder.

    Args:
      prefix: prepended to each path.
      above: for internal use: the parent folders, to detect cycles of links.
      unreadable: collects the errors of unreadable folders; `None`: they are raised.
    """
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
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
        elif os.path.isdir(entry.path):  # False, not an error, for a link to itself
            yield from walk(entry.path, path + "/", (*above, here), unreadable)
        elif kind and os.path.isfile(entry.path):
            yield path, kind
        else:
            yield path, "missing" if kind and entry.is_symlink() else "other"


def _check_settings(root: Path, label: str, group: str) -> None:
    """Raises `UserError` if the settings are for a CSV, or the folder is a TFDS set."""
    for key, value in (("data.label", label), ("data.group", group or "group")):
        if key != f"data.{value}":
            tables = sorted(str(file) for file in root.glob("*.csv"))
            hint = f"; did you mean data.path={tables[0]!r}?" if tables else ""
            raise UserError(
                f"{key}={value!r} names a column of a CSV, but data.path {str(root)!r} is a "
                f"folder{hint}"
            )
    if (root / "dataset_info.json").is_file():
        raise UserError(
            f"data.path: {str(root)!r} is a TFDS set; name it as tfds:NAME and set data.tfds_dir "
            "to the folder that holds NAME"
        )


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))


def _given_splits(root: Path, training: bool) -> dict[str, str]:
    """Returns the split of each folder; {} if the folders are classes."""
    folders = _subfolders(root)
    splits = {folder: SPLIT_OF_NAME.get(folder.lower(), "") for folder in folders}
    train = [folder for folder, split in splits.items() if split == "train"]
    if not train or not all(splits.values()) or not any(_subfolders(root / name) for name in train):
        return {}
    for first, second in itertools.combinations(folders, 2):
        if splits[first] == splits[second]:
            raise UserError(
                f"data.path: {str(root)!r} has two folders for one split, {first!r} and "
                f"{second!r}; merge them"
            )
    if training and "val" not in splits.values():
        splits[train[0]] = ""
    return splits


def _nothing_found(root: Path, split: str, loose: list[str], others: list[str]) -> UserError:
    where = f"data.path: {str(root / split)!r}"
    if loose := [path for path in loose if path.startswith(split)]:
        return UserError(
            f"{where} holds {len(loose)} files directly, e.g. {loose[0]!r}; "
            "expected one sub-folder per class"
        )
    others = [path for path in others if path.startswith(split)]
    seen = f" (found {len(others)} other files, e.g. {others[0]!r})" if others else ""
    return UserError(
        f"{where} holds no recordings or images{seen}; expected one sub-folder per class with "
        f"{' '.join(KIND_OF_SUFFIX)} files"
    )


def _check_depth(root: Path, filled: Iterable[str]) -> None:
    """Raises `UserError` if there is one class and it holds folders, which are probably classes."""
    only, *more = sorted(filled)
    if not more and _subfolders(root / only):
        raise UserError(
            f"data.path: {str(root)!r} holds files in one sub-folder only, {only!r}; "
            f"expected one sub-folder per class; did you mean {str(root / only)!r}?"
        )
