"""What the folders of a data set are: classes, splits, wrappers, or none of these."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from meljax.data.file_tree import Tree, join
from meljax.data.near_tables import TABLE_FOLDERS
from meljax.data.split_names import looks_like_split, split_of, splits_of
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
    """Returns the layout of a folder; `layout_checks` tells whether it can be learned.

    Args:
      tree: its files and folders.
      allow_split_names: whether classes may look like splits.
      training: whether a split for training is required.

    Raises:
      LayoutError: the classes cannot be told.
    """
    base = enter(tree, "", "", ())
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
    names = inner_folders(tree, base)
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


def _set_unlabeled_aside(tree: Tree, layout: Layout, names: list[str]) -> list[str]:
    """Sets folders of unlabeled files aside if two others remain; returns the remaining ones."""
    flat = [name for name in names if not inner_folders(tree, join(layout.base, name))]
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


def inner_folders(tree: Tree, folder: str) -> list[str]:
    """Returns the sub-folders with recordings or images, without background."""
    return [name for name in tree.filled(folder) if not is_background(name)]


def enter(tree: Tree, folder: str, split: str, classes: Collection[str]) -> str:
    """Returns the folder reached from `folder` through sub-folders that are the only one.

    It stops at class folders: those in `classes`, and those that hold files directly; and at
    folders for another split than `split`.
    """
    while not tree.direct[folder]:
        names = inner_folders(tree, folder)
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
    deep = [name for name in splits if inner_folders(tree, join(base, name))]
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
            f"has splits ({quoted(splits)}) and beside them {quoted(more)} with "
            f"{_files(sum(tree.below[join(base, name)] for name in more))}; move that out of the "
            "folder, or its files into the splits"
        )
    names_of = {split: [n for n in splits if splits[n] == split] for split in splits.values()}
    if twice := next((each for each in names_of.values() if len(each) > 1), None):
        raise LayoutError(
            f"has {len(twice)} folders for one split, {quoted(twice)}; keep one, or put all of "
            "their classes into one"
        )
    if training and "train" not in names_of:
        raise LayoutError(
            f"has splits ({quoted(splits)}) but none for training; add a folder 'train'"
        )
    for split in sorted(names_of, key=("train", "val", "test").index):
        _add_split_folder(tree, layout, names_of[split][0], split)
    if training:
        _open_split(layout)


def _add_split_folder(tree: Tree, layout: Layout, name: str, split: str) -> None:
    """Adds the classes of one split; training comes first."""
    top = join(layout.base, name)
    known = {label for label, _ in layout.classes.values()}
    folder = enter(tree, top, split, known)
    inner = inner_folders(tree, folder)
    alike = {label.casefold() for label in known} & {each.casefold() for each in inner}
    flat = not inner or bool(len(inner) == 1 and known and not alike)
    if flat and split == "test" and not inner_folders(tree, join(folder, "".join(inner[:1]))):
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
    for name in inner_folders(tree, folder):
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
    splits = {name: splits_of(inner_folders(tree, join(base, name))) for name in names}
    shared = set.intersection(*(set(each.values()) for each in splits.values())) if names else set()
    if not (shared and len(names) > 1) and all(len(set(s.values())) < 2 for s in splits.values()):
        return {}
    for name, given in splits.items():
        folder = join(base, name)
        if len(given) < len(inner_folders(tree, folder)) or tree.direct[folder] or not given:
            sample = next(f"{n}/{s}" for n, inner in splits.items() for s in inner)
            raise LayoutError(
                f"has splits inside classes, e.g. {sample!r}, but class {name!r} also holds files "
                "outside of splits; move them into the splits, or set data.allow_split_names=true "
                "to take the splits for ordinary parts of the classes"
            )
        for inner in given:
            if (
                not tree.direct[join(folder, inner)]
                and len(inner_folders(tree, join(folder, inner))) > 1
            ):
                raise LayoutError(
                    f"holds several folders with splits of their own ({quoted(names)}); "
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
    layout.notes.append(f"splits: folders {quoted(found)} inside the classes")
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


def quoted(names: Iterable[str], most: int = 5) -> str:
    """Returns the first `most` names, quoted and separated by commas."""
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
    for path in paths:
        yield _owner(path.rpartition("/")[0] if inside else path, folders, known)


def _owner(folder: str, folders: Collection[str], known: dict[str, str | None]) -> str | None:
    """Returns the innermost of `folders` that is or contains `folder`, or `None`.

    `known` caches the results.
    """
    if folder not in known:
        outer = folder.rpartition("/")[0]
        known[folder] = folder if folder in folders else _owner(outer, folders, known)
    return known[folder]
