"""What the folders of a data set are: classes, splits, wrappers, or none of these."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from meljax.data.file_tree import Tree, join
from meljax.data.near_tables import TABLE_FOLDERS
from meljax.data.split_names import (
    are_parts,
    looks_like_split,
    not_classes,
    split_of,
    splits_of,
)
from meljax.util.errors import UserError
from meljax.util.phrases import count


@dataclass
class Layout:
    """Which folders of a tree are classes; paths are relative to its root."""

    base: str  # folder that holds the classes or splits
    train: str = ""  # folder that holds the classes of the training split
    classes: dict[str, tuple[str, str]] = field(default_factory=dict)  # label and split of a folder
    aside: dict[str, str] = field(default_factory=dict)  # 'background' or 'unlabeled' folders
    empty: list[str] = field(default_factory=list)  # class folders without recordings or images
    notes: list[str] = field(default_factory=list)  # one line each


class LayoutError(UserError):
    """A layout that cannot be learned; the message lacks the folder's name, its subject.

    Attributes:
      base: the folder, relative to the root.
      needs: what data.pattern must find in the paths of its files: labels, or also splits or
        groups in the names of the folders there; '': it is no remedy.
      instead: a folder that was probably meant, relative to the root; '': none.
    """

    base = ""

    def __init__(
        self,
        message: str,
        needs: Literal["", "label", "split", "group"] = "",
        instead: str = "",
    ):
        super().__init__(message)
        self.needs = needs
        self.instead = instead


_UNLABELED = ("unlabeled", "unlabelled", "unlabeled_data", "to_predict", "predict")
"""Names of folders with files to predict, in lower case."""


def is_background(name: str) -> bool:
    """Returns whether a folder holds background recordings, as '_background_noise_' does.

    The underscores tell it from a class, such as 'background_noise'.
    """
    framed = name.startswith("_") and name.endswith("_")
    return framed and name.strip("_").lower() in ("background", "background_noise")


def find_layout(tree: Tree, allow_split_names: bool, training: bool) -> Layout:
    """Returns the layout of a folder.

    Args:
      tree: its files and folders.
      allow_split_names: whether classes may look like splits.
      training: whether a split for training is required.

    Raises:
      LayoutError: the classes cannot be told.
    """
    base = _enter(tree, "", "", ())
    layout = Layout(base, train=base)
    try:
        _fill(tree, layout, allow_split_names, training)
    except LayoutError as error:
        error.base = base
        raise
    return layout


def _fill(tree: Tree, layout: Layout, allow_split_names: bool, training: bool) -> None:
    base = layout.base
    if base:
        layout.notes.append(f"entered {base!r}, the only sub-folder with recordings or images")
    names = _inner(tree, base)
    if not names and tree.direct[base]:
        raise LayoutError(
            f"holds {_files(tree.direct[base])} directly, e.g. {_example(tree, base)!r}; expected "
            "one sub-folder per class, a table, or labels in the names",
            "label",
        )
    names = _set_unlabeled_aside(tree, layout, names)
    splits = splits_of(names)
    if _are_splits(tree, base, names, splits, allow_split_names):
        _add_split_folders(tree, layout, names, splits, training)
    elif not allow_split_names and (below := _splits_below(tree, base, names)):
        _add_splits_below(tree, layout, below, training)
    else:
        _add_classes(tree, layout, base, "")
    _set_background_aside(tree, layout)
    _check_names(tree, layout, allow_split_names)
    _check_copies(tree, layout)
    if not allow_split_names:
        _check_splits_inside(tree, layout)
    _check_same_folders(tree, layout)
    if not allow_split_names:
        _check_parts(layout)
    labels = {label for label, _ in layout.classes.values()}
    if training and len(labels) == 1:
        _check_single_class(tree, layout, *labels)


def _set_unlabeled_aside(tree: Tree, layout: Layout, names: list[str]) -> list[str]:
    """Sets folders of unlabeled files aside if two others remain; returns the remaining ones."""
    flat = [name for name in names if not _inner(tree, join(layout.base, name))]
    aside = [name for name in flat if name.lower().replace(" ", "_") in _UNLABELED]
    tests = [name for name in flat if split_of(name) == "test"]
    if tests == [name for name in names if looks_like_split(name)]:
        aside += tests
    rest = [name for name in names if name not in aside]
    if len(rest) < 2 or splits_of(rest):
        return names
    for name in aside:
        _set_aside(tree, layout, join(layout.base, name))
    return rest


def _set_aside(tree: Tree, layout: Layout, folder: str) -> None:
    layout.aside[folder] = "unlabeled"
    layout.notes.append(
        f"{folder!r} holds {count(tree.below[folder], 'unlabeled file')}, left out; "
        "meljax predict predicts their classes"
    )


def _check_single_class(tree: Tree, layout: Layout, name: str) -> None:
    """Raises `LayoutError`: there is one class only.

    If it is one folder with sub-folders, these are probably the classes.
    """
    folder = join(layout.base, name)
    alone = list(layout.classes) == [folder]
    if alone and _inner(tree, folder):
        raise LayoutError(
            f"holds files in one sub-folder only, {name!r}; expected one sub-folder per class",
            instead=folder,
        )
    raise LayoutError(
        f"has files of one class only, {name!r}; expected at least two class folders, a table, or "
        "labels in the names",
        "label" if alone else "split",
    )


def _inner(tree: Tree, folder: str) -> list[str]:
    """Returns the sub-folders with recordings or images, without background."""
    return [name for name in tree.filled(folder) if not is_background(name)]


def _enter(tree: Tree, folder: str, split: str, classes: Collection[str]) -> str:
    """Returns the folder reached from `folder` through sub-folders that are the only one.

    It stops at class folders: those in `classes`, and those that hold files directly; and at
    folders for another split than `split`.
    """
    while not tree.direct[folder]:
        names = _inner(tree, folder)
        if len(names) != 1 or names[0] in classes or _empty_classes(tree, folder):
            break
        below = join(folder, names[0])
        if tree.direct[below] or split_of(names[0]) not in ("", split):
            break
        folder = below
    return folder


def _are_splits(
    tree: Tree, base: str, names: list[str], splits: dict[str, str], allow_split_names: bool
) -> bool:
    """Returns whether the folders `names` are splits that hold class folders."""
    deep = [name for name in splits if _inner(tree, join(base, name))]
    if not deep:
        return False
    if allow_split_names:
        return len(splits) == len(names) and "train" in {splits[name] for name in deep}
    return len(splits) == len(names) or len(set(splits.values())) > 1


def _add_split_folders(
    tree: Tree, layout: Layout, names: list[str], splits: dict[str, str], training: bool
) -> None:
    base = layout.base
    for name in tree.empty(base):
        if name not in splits and split_of(name):
            raise LayoutError(f"has a split {name!r} without readable files; remove it or fill it")
    if more := [name for name in names if name not in splits]:
        raise LayoutError(
            f"has splits ({_listed(splits)}) and beside them {_listed(more)} with "
            f"{_files(sum(tree.below[join(base, name)] for name in more))}; move that out of the "
            "folder, or its files into the splits"
        )
    names_of = {split: [n for n in splits if splits[n] == split] for split in splits.values()}
    if twice := next((each for each in names_of.values() if len(each) > 1), None):
        raise LayoutError(
            f"has {len(twice)} folders for one split, {_listed(twice)}; keep one, or put all of "
            "their classes into one"
        )
    if training and "train" not in names_of:
        raise LayoutError(
            f"has splits ({_listed(splits)}) but none for training; add a folder 'train'"
        )
    for split in sorted(names_of, key=("train", "val", "test").index):
        _add_split_folder(tree, layout, names_of[split][0], split)
    if training:
        _open_split(layout)


def _add_split_folder(tree: Tree, layout: Layout, name: str, split: str) -> None:
    """Adds the classes of one split; training comes first."""
    top = join(layout.base, name)
    known = {label for label, _ in layout.classes.values()}
    folder = _enter(tree, top, split, known)
    inner = _inner(tree, folder)
    alike = {label.casefold() for label in known} & {each.casefold() for each in inner}
    flat = not inner or bool(len(inner) == 1 and known and not alike)
    if flat and split == "test" and not _inner(tree, join(folder, "".join(inner[:1]))):
        _set_aside(tree, layout, top)
        return
    if not inner:
        raise LayoutError(
            f"has a split {top!r} that holds {_files(tree.below[top])} directly, e.g. "
            f"{_example(tree, top)!r}; expected one sub-folder per class",
            "split",
        )
    if split == "train":
        layout.train = folder
    entered = f" (in {folder!r})" if folder != top else ""
    layout.notes.append(f"split {split}: folder {top!r}{entered}")
    _add_classes(tree, layout, folder, split)


def _add_classes(tree: Tree, layout: Layout, folder: str, split: str) -> None:
    """Adds the sub-folders as classes."""
    for name in _inner(tree, folder):
        if join(folder, name) in layout.aside:
            continue
        layout.classes[join(folder, name)] = (name, split)
    layout.empty += _empty_classes(tree, folder)


def _empty_classes(tree: Tree, folder: str) -> list[str]:
    """Returns the sub-folders that may be classes whose files are missing or cannot be read."""
    return [
        join(folder, name)
        for name in tree.empty(folder)
        if name.lower() not in TABLE_FOLDERS and not is_background(name)
    ]


def _splits_below(tree: Tree, base: str, names: list[str]) -> dict[str, dict[str, str]]:
    """Returns the split of each sub-folder of each class; {} if the classes hold no splits."""
    splits = {name: splits_of(_inner(tree, join(base, name))) for name in names}
    shared = set.intersection(*(set(each.values()) for each in splits.values())) if names else set()
    if not (shared and len(names) > 1) and all(len(set(s.values())) < 2 for s in splits.values()):
        return {}
    for name, given in splits.items():
        folder = join(base, name)
        if len(given) < len(_inner(tree, folder)) or tree.direct[folder] or not given:
            sample = next(f"{n}/{s}" for n, inner in splits.items() for s in inner)
            raise LayoutError(
                f"has splits inside classes, e.g. {sample!r}, but class {name!r} also holds files "
                "outside of splits; move them into the splits, or set data.allow_split_names=true "
                "to take the splits for ordinary parts of the classes"
            )
        for inner in given:
            if not tree.direct[join(folder, inner)] and len(_inner(tree, join(folder, inner))) > 1:
                raise LayoutError(
                    f"holds several folders with splits of their own ({_listed(names)}); "
                    "name one of them in data.path"
                )
    return splits


def _add_splits_below(
    tree: Tree, layout: Layout, below: dict[str, dict[str, str]], training: bool
) -> None:
    for name, splits in below.items():
        for inner, split in splits.items():
            layout.classes[join(join(layout.base, name), inner)] = (name, split)
        if len(set(splits.values())) < len(splits):
            raise LayoutError(f"has two folders for one split in class {name!r}; keep one")
    layout.empty += _empty_classes(tree, layout.base)
    found = sorted({inner for splits in below.values() for inner in splits})
    layout.notes.append(f"splits: folders {_listed(found)} inside the classes")
    if training:
        _open_split(layout)


def _open_split(layout: Layout) -> None:
    """If there is no validation split, leaves the split of the training classes undecided."""
    if all(split != "val" for _, split in layout.classes.values()):
        for folder, (label, split) in layout.classes.items():
            layout.classes[folder] = (label, "" if split == "train" else split)


def _set_background_aside(tree: Tree, layout: Layout) -> None:
    for parent, names in tree.folders.items():
        for folder in (join(parent, name) for name in names if is_background(name)):
            if tree.below[folder]:
                layout.aside[folder] = "background"
                layout.notes.append(
                    f"{folder!r} is no class; {_files(tree.below[folder])} in it left out"
                )


def _check_names(tree: Tree, layout: Layout, allow_split_names: bool) -> None:
    """Raises `LayoutError` if classes look like splits or folds, unless that is allowed."""
    where = {label: folder for folder, (label, _) in layout.classes.items()}
    found = not_classes(where)
    if allow_split_names:
        if found:
            layout.notes.append(f"data.allow_split_names: {_listed(found)} are learned as classes")
        return
    if not found:
        for name in filter(split_of, where):
            _check_single(tree, layout, name, where)
        return
    splits = all(map(split_of, found))
    at_base = where[found[0]] == join(layout.base, found[0])
    raise LayoutError(
        f"has folders that are splits or folds, not classes: {_listed(found)}; give labels by one "
        f"sub-folder per class{' inside them' if splits else ''}, by a table or by data.pattern, "
        "or set data.allow_split_names=true to learn these names as classes",
        "" if not at_base else "split" if splits else "group",
    )


def _check_copies(tree: Tree, layout: Layout) -> None:
    """Raises `LayoutError` if a class holds folders named like other classes, as a copy does."""
    labels = {label for label, _ in layout.classes.values()}
    for folder, (label, _) in layout.classes.items():
        if len(copies := sorted({*_inner(tree, folder)} & (labels - {label}))) > 1:
            raise LayoutError(
                f"holds {folder!r}, with folders named like the classes beside it "
                f"({_listed(copies)}); move that out of the folder, or name it in data.path"
            )


def _check_splits_inside(tree: Tree, layout: Layout) -> None:
    """Raises `LayoutError` if there are folders for splits somewhere in a class."""
    parents = [folder for folder in tree.folders if folder]
    for parent, owner in zip(parents, owners(parents, layout.classes, inside=False), strict=True):
        splits = splits_of(_inner(tree, parent)) if owner is not None else {}
        if len(set(splits.values())) > 1:
            raise LayoutError(
                f"has the class folder {owner!r}, but {parent!r} inside it holds splits "
                f"({_listed(splits)}); name {parent!r} in data.path, or set "
                "data.allow_split_names=true to treat the splits as sub-folders of the class"
            )


def _check_parts(layout: Layout) -> None:
    """Raises `LayoutError` if all classes look like parts or versions of a set."""
    labels = {label for label, _ in layout.classes.values()}
    if are_parts(labels, of_classes=False):
        raise LayoutError(
            f"has folders that look like parts or versions of a set, not classes: "
            f"{_listed(sorted(labels))}; name one of them in data.path, give labels by a table or "
            "by data.pattern, or set data.allow_split_names=true to learn these names as classes",
            "group",
        )


def _check_same_folders(tree: Tree, layout: Layout) -> None:
    """Raises `LayoutError` if the classes hold folders of the same names: these may be the classes.

    If those are named as parts or versions, as 'day1', a note says that they are parts of the
    classes, unless the outer folders are named so too.
    """
    depth, folders = 0, {folder: [folder] for folder in layout.classes}
    while any(folders.values()):
        depth += 1
        folders = {
            top: [join(folder, name) for folder in each for name in _inner(tree, folder)]
            for top, each in folders.items()
        }
        inner = {top: {path.rpartition("/")[2] for path in each} for top, each in folders.items()}
        shared = _shared_names(layout, inner)
        if not shared:
            continue
        outer = sorted({layout.classes[top][0] for top in inner if inner[top]})
        parts = are_parts(shared) or all(map(looks_like_split, shared))
        if parts and not are_parts(outer):
            pattern = _level_pattern(layout, "(?P<label>[^/]+)/" + "[^/]+/" * (depth - 1))
            layout.notes.append(
                f"the folders {_listed(shared)} are parts of the classes; to keep each in one "
                f"split, set data.pattern='{pattern}(?P<group>[^/]+)/.+'"
            )
            continue
        inside = _level_pattern(layout, "(?P<group>[^/]+)/" + "[^/]+/" * (depth - 1))
        outside = _level_pattern(layout, "(?P<label>[^/]+)/")
        raise LayoutError(
            f"has folders of the same names ({_listed(shared)}) inside the folders "
            f"{_listed(outer)}, and either may be the classes: for the inner ones, set "
            f"data.pattern='{inside}(?P<label>[^/]+)/.+'; for the outer ones, "
            f"data.pattern='{outside}.+'"
        )


def _shared_names(layout: Layout, inner: Mapping[str, set[str]]) -> list[str]:
    """Returns the names of inner folders that several classes share.

    It is [] if these are less than half of the inner folders, if most class folders have none, or
    if there is one name only. `inner`: the names by the folder of the class.
    """
    labels = defaultdict(set)
    for folder, names in inner.items():
        for name in names:
            labels[name.casefold()].add(layout.classes[folder][0])
    shared = {name for name, owners in labels.items() if len(owners) > 1}
    used = [name for names in inner.values() for name in names]
    mostly = 2 * sum(name.casefold() in shared for name in used) >= len(used)
    holders = sum(bool(names) for names in inner.values())
    if len(labels) < 2 or not mostly or 2 * holders < len(inner):
        return []
    return sorted({name for name in used if name.casefold() in shared})


def _level_pattern(layout: Layout, end: str) -> str:
    """Returns a pattern for the paths of classes, up to and with the folders that `end` matches."""
    start = re.escape(join(layout.base, ""))
    if any(split for _, split in layout.classes.values()):
        below = layout.train.removeprefix(layout.base).strip("/")
        start += "(?P<split>[^/]+)/" + "[^/]+/" * below.count("/")
    return start + end


def _check_single(tree: Tree, layout: Layout, name: str, where: dict[str, str]) -> None:
    """Raises `LayoutError` if `name`, whose siblings are ordinary, seems to hold class folders."""
    folder = where[name]
    inner = _inner(tree, _enter(tree, folder, "", ()))
    if tree.direct[folder] or len(inner) < 2:
        layout.notes.append(f"{name!r} is a class, as no folder beside it looks like a split")
        return
    others = [other for other in where if other != name]
    raise LayoutError(
        f"holds {name!r}, which looks like a split with the classes {_listed(inner)}, and beside "
        f"it {_listed(others)}; move that out of the folder, or set data.allow_split_names=true "
        "to learn all of them as classes"
    )


def _listed(names: Iterable[str], most: int = 5) -> str:
    ordered = list(names)
    return ", ".join(map(repr, ordered[:most])) + (", …" if len(ordered) > most else "")


def _files(number: int) -> str:
    return count(number, "file")


def _example(tree: Tree, folder: str) -> str:
    return next(path for path in tree.files if path.startswith(join(folder, "")))


def owners(
    paths: Iterable[str], folders: Collection[str], inside: bool = True
) -> Iterator[str | None]:
    """Yields for each path the innermost of `folders` that contains it, or `None`.

    Unless `inside`, a path that is one of `folders` counts as contained in itself.
    """
    known: dict[str, str | None] = {"": None}

    def owner(folder: str) -> str | None:
        if folder not in known:
            known[folder] = folder if folder in folders else owner(folder.rpartition("/")[0])
        return known[folder]

    for path in paths:
        yield owner(path.rpartition("/")[0] if inside else path)
