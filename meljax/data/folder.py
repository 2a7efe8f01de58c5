"""Reads a folder: its classes are sub-folders, or in the names of the files by `data.pattern`."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from meljax.config import DataConfig
from meljax.data import near_tables
from meljax.data.file_tree import Tree, join
from meljax.data.layout import LayoutError, find_layout, is_background, owners
from meljax.data.layout_checks import check_layout
from meljax.data.manifest import (
    KIND_OF_SUFFIX,
    Bad,
    Item,
    Manifest,
    common_kind,
    file_manifest,
    kind_name,
    kind_of,
    noun,
)
from meljax.data.pattern import labeled_by_pattern, proposed_pattern
from meljax.data.split_lists import read_split_lists, split_lists
from meljax.data.split_names import not_classes
from meljax.util.errors import UserError
from meljax.util.phrases import count


def scan_folder(root: Path, tree: Tree, data: DataConfig, training: bool) -> Manifest:
    """Returns the manifest of a folder; see `sources.read_manifest`."""
    tables = near_tables.near_tables(root, tree)
    try:
        _check_settings(root, data, training)
        scan = _scan_names if data.pattern else _scan_classes
        manifest = scan(root, tree, data, training)
        if training and not data.pattern:
            near_tables.check_same_classes(root, tables, manifest.items)
    except UserError as error:
        if data.pattern or "did you mean" in str(error):
            raise
        raise UserError(f"{error}{near_tables.hint(root, tables)}", error.details) from error
    used = "the names of the files" if data.pattern else "the folders"
    notes = (*manifest.notes, *near_tables.note(tables, used))
    return dataclasses.replace(manifest, notes=notes)


def _check_settings(root: Path, data: DataConfig, training: bool) -> None:
    """Raises `UserError` if the settings are for a table, or the folder is a TFDS set."""
    for key, value in (("data.label", data.label), ("data.group", data.group or "group")):
        if training and key != f"data.{value}":
            raise UserError(
                f"{key}={value!r} names a column of a table, but data.path {str(root)!r} is a "
                "folder"
            )
    if (root / "dataset_info.json").is_file():
        raise UserError(
            f"data.path: {str(root)!r} is a TFDS set; name it as tfds:NAME and set data.tfds_dir "
            "to the folder that holds NAME"
        )


def _scan_names(root: Path, tree: Tree, data: DataConfig, training: bool) -> Manifest:
    """Returns the manifest with labels from the names of the files."""
    background = [path for path in tree.files if any(map(is_background, path.split("/")[:-1]))]
    files = sorted(set(tree.files) - set(background))
    if not files:
        raise _nothing_found(root, tree)
    items = labeled_by_pattern(data.pattern, files, training)
    found = not_classes({item.label for item in items})
    if found and not data.allow_split_names:
        raise UserError(
            f"data.pattern finds labels that are splits or folds, not classes: "
            f"{', '.join(map(repr, found[:5]))}; change the pattern, or set "
            "data.allow_split_names=true"
        )
    aside = dict.fromkeys(background, "background")
    notes = _take_background(items, aside, data.background)
    lists = [path for path, _ in split_lists(root, tree)]
    notes += [f"the list {path!r} is not used with data.pattern" for path in lists]
    return _manifest(root, tree, items, aside, [], notes, training)


def _scan_classes(root: Path, tree: Tree, data: DataConfig, training: bool) -> Manifest:
    """Returns the manifest with labels from the folders."""
    if not tree.files:
        raise _nothing_found(root, tree)
    try:
        layout = find_layout(tree, data.allow_split_names, training)
        check_layout(tree, layout, data.allow_split_names, training)
    except LayoutError as error:
        _check_mixture(root, tree)
        raise _explained(root, tree, error) from error
    items, aside = [], {}
    folders = {*layout.classes, *layout.aside}
    for path, folder in zip(tree.files, owners(tree.files, folders), strict=True):
        if folder in layout.classes:
            label, split = layout.classes[folder]
            items.append(Item(path, label, split=split))
        elif folder:
            aside[path] = layout.aside[folder]
    if not items:
        raise _nothing_found(root, tree)
    lists = read_split_lists(root, tree, layout.train, items)
    unlisted = 0
    if lists.split_of:
        items, unlisted = _by_lists(items, lists.split_of, training)
        lists.notes.extend([f"{count(unlisted, 'file')} in no list left out"] * bool(unlisted))
    loose = len(tree.files) - len(items) - len(aside) - unlisted
    notes = [*layout.notes, *_take_background(items, aside, data.background), *lists.notes]
    if loose:
        notes.append(f"{count(loose, 'file')} outside of the class folders left out")
    manifest = _manifest(root, tree, items, aside, layout.empty, notes, training)
    return dataclasses.replace(manifest, warnings=tuple(lists.warnings))


def _take_background(items: list[Item], aside: dict[str, str], name: str) -> list[str]:
    """Moves files of the background class `name` from `aside` to `items`; returns notes.

    The files get no split, because lists and folders of splits do not include them.
    """
    folders: dict[str, list[str]] = {}
    for path in (path for path, what in aside.items() if what == "background"):
        folders.setdefault(_background_folder(path), []).append(path)
    notes = []
    for folder, paths in folders.items():
        files = count(len(paths), "file")
        if folder.rpartition("/")[2] == name:
            items += [Item(path, name) for path in paths]
            for path in paths:
                del aside[path]
            notes.append(f"{folder!r} is the background, with {files}")
        else:
            hint = f"; data.background={folder.rpartition('/')[2]} trains on it"
            notes.append(f"{folder!r} is not a class; {files} in it left out{hint}")
    return notes


def _background_folder(path: str) -> str:
    """Returns the path of the background folder that a file is in."""
    parts = path.split("/")
    place = next(i for i, part in enumerate(parts) if is_background(part))
    return "/".join(parts[: place + 1])


def _check_mixture(root: Path, tree: Tree) -> None:
    """Raises `UserError` if recordings and images are each more than a fifth of the files."""
    kinds = Counter(map(kind_of, tree.files))
    if 5 * min(kinds["audio"], kinds["image"]) > len(tree.files):
        common_kind(root, [Item(path, "") for path in tree.files])


def _by_lists(
    items: Sequence[Item], split_of: Mapping[str, str], training: bool
) -> tuple[list[Item], int]:
    """Returns the items with the splits of lists, and the number of items left out.

    An item in no list keeps the validation or test split of its folder. Others are left out if
    there is a list for training; else they are for training.
    """
    given = set(split_of.values())
    unlisted = {"val", "test"} if "train" in given else {"", "train", "val", "test"}
    kept = [item for item in items if item.path in split_of or item.split in unlisted]
    splits = [split_of.get(item.path, item.split or "train") for item in kept]
    rest = "" if training and "val" not in splits else "train"
    decided = [
        dataclasses.replace(item, split=rest if split == "train" else split)
        for item, split in zip(kept, splits, strict=True)
    ]
    return decided, len(items) - len(kept)


def _manifest(
    root: Path,
    tree: Tree,
    items: Sequence[Item],
    aside: dict[str, str],
    empty: Sequence[str],
    notes: Sequence[str],
    training: bool,
) -> Manifest:
    """Returns the manifest; all other files of the tree are counted as left out.

    `aside`: 'background' or 'unlabeled' by path; `empty`: class folders without items.
    """
    kind = common_kind(root, items)
    taken = {item.path for item in items}
    left_out = Counter(f"{what} {noun(kind)}" for what in aside.values())
    loose = (path for path in tree.files if path not in taken and path not in aside)
    left_out.update(map(kind_name, (*loose, *tree.others)))
    bad = [Bad(path, "no such file") for path in tree.missing]
    bad += [Bad(folder, f"class folder holds no {noun(kind)}") for folder in empty]
    return file_manifest(root, root, kind, items, left_out, bad, training, notes)


def _explained(root: Path, tree: Tree, error: LayoutError) -> UserError:
    """Returns the error with the folder's name and an example of data.pattern."""
    example = ""
    if error.needs:
        folder = f"{re.escape(join(error.base, ''))}(?P<{error.needs}>[^/]+)/"
        example = proposed_pattern(tree.files, "" if error.needs == "label" else folder)
    if error.instead:
        example = f"; did you mean {str(root / error.instead)!r}?"
    return UserError(f"data.path: {str(root / error.base)!r} {error}{example}", error.details)


def _nothing_found(root: Path, tree: Tree) -> UserError:
    others = tree.others + tree.missing
    seen = f" (found {len(others):,} other files, e.g. {others[0]!r})" if others else ""
    return UserError(
        f"data.path: {str(root)!r} holds no recordings or images{seen}; expected one sub-folder "
        f"per class with {' '.join(KIND_OF_SUFFIX)} files"
    )
