"""Checks that the classes of a layout are not splits, folds, parts, copies or speakers."""

import re
from collections import defaultdict
from collections.abc import Mapping

from meljax.data.file_tree import Tree, join
from meljax.data.layout import Layout, LayoutError, enter, inner_folders, owners, quoted
from meljax.data.split_names import are_parts, looks_like_split, not_classes, split_of, splits_of


def check_layout(tree: Tree, layout: Layout, allow_split_names: bool, training: bool) -> None:
    """Raises `LayoutError` if the classes cannot be learned; adds notes to the layout.

    The arguments are those of `layout.find_layout`.
    """
    try:
        _check(tree, layout, allow_split_names, training)
    except LayoutError as error:
        error.base = layout.base
        raise


def _check(tree: Tree, layout: Layout, allow_split_names: bool, training: bool) -> None:
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


def _check_names(tree: Tree, layout: Layout, allow_split_names: bool) -> None:
    """Raises `LayoutError` if classes look like splits or folds, unless that is allowed."""
    where = {label: folder for folder, (label, _) in layout.classes.items()}
    found = not_classes(where)
    if allow_split_names:
        if found:
            layout.notes.append(f"data.allow_split_names: {quoted(found)} are learned as classes")
        return
    if not found:
        for name in filter(split_of, where):
            _check_single(tree, layout, name, where)
        return
    splits = all(map(split_of, found))
    at_base = where[found[0]] == join(layout.base, found[0])
    raise LayoutError(
        f"has folders that are splits or folds, not classes: {quoted(found)}; give labels by one "
        f"sub-folder per class{' inside them' if splits else ''}, by a table or by data.pattern, "
        "or set data.allow_split_names=true to learn these names as classes",
        "" if not at_base else "split" if splits else "group",
    )


def _check_copies(tree: Tree, layout: Layout) -> None:
    """Raises `LayoutError` if a class holds folders named like other classes, as a copy does."""
    labels = {label for label, _ in layout.classes.values()}
    for folder, (label, _) in layout.classes.items():
        if len(copies := sorted({*inner_folders(tree, folder)} & (labels - {label}))) > 1:
            raise LayoutError(
                f"holds {folder!r}, with folders named like the classes beside it "
                f"({quoted(copies)}); move that out of the folder, or name it in data.path"
            )


def _check_splits_inside(tree: Tree, layout: Layout) -> None:
    """Raises `LayoutError` if there are folders for splits somewhere in a class."""
    parents = [folder for folder in tree.folders if folder]
    for parent, owner in zip(parents, owners(parents, layout.classes, inside=False), strict=True):
        splits = splits_of(inner_folders(tree, parent)) if owner is not None else {}
        if len(set(splits.values())) > 1:
            raise LayoutError(
                f"has the class folder {owner!r}, but {parent!r} inside it holds splits "
                f"({quoted(splits)}); name {parent!r} in data.path, or set "
                "data.allow_split_names=true to treat the splits as sub-folders of the class"
            )


def _check_parts(layout: Layout) -> None:
    """Raises `LayoutError` if all classes look like parts or versions of a set."""
    labels = {label for label, _ in layout.classes.values()}
    if are_parts(labels, of_classes=False):
        raise LayoutError(
            f"has folders that look like parts or versions of a set, not classes: "
            f"{quoted(sorted(labels))}; name one of them in data.path, give labels by a table or "
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
            top: [join(folder, name) for folder in each for name in inner_folders(tree, folder)]
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
                f"the folders {quoted(shared)} are parts of the classes; to keep each in one "
                f"split, set data.pattern='{pattern}(?P<group>[^/]+)/.+'"
            )
            continue
        inside = _level_pattern(layout, "(?P<group>[^/]+)/" + "[^/]+/" * (depth - 1))
        outside = _level_pattern(layout, "(?P<label>[^/]+)/")
        raise LayoutError(
            f"has folders of the same names ({quoted(shared)}) inside the folders "
            f"{quoted(outer)}, and either may be the classes: for the inner ones, set "
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
    shared = {name for name, found in labels.items() if len(found) > 1}
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
    inner = inner_folders(tree, enter(tree, folder, "", ()))
    if tree.direct[folder] or len(inner) < 2:
        layout.notes.append(f"{name!r} is a class, as no folder beside it looks like a split")
        return
    others = [other for other in where if other != name]
    raise LayoutError(
        f"holds {name!r}, which looks like a split with the classes {quoted(inner)}, and beside "
        f"it {quoted(others)}; move that out of the folder, or set data.allow_split_names=true "
        "to learn all of them as classes"
    )


def _check_single_class(tree: Tree, layout: Layout, name: str) -> None:
    """Raises `LayoutError`: there is one class only.

    If it is one folder with sub-folders, these are probably the classes.
    """
    folder = join(layout.base, name)
    alone = list(layout.classes) == [folder]
    if alone and inner_folders(tree, folder):
        raise LayoutError(
            f"holds files in one sub-folder only, {name!r}; expected one sub-folder per class",
            instead=folder,
        )
    raise LayoutError(
        f"has files of one class only, {name!r}; expected at least two class folders, a table, or "
        "labels in the names",
        "label" if alone else "split",
    )
