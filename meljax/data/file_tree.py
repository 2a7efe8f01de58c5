"""The files and folders below a folder, read in one walk."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from meljax.data.manifest import is_hidden, kind_of
from meljax.features.frontend import Kind


@dataclass(frozen=True)
class Tree:
    """The files below a folder. Paths are relative to it, with '/'; '' is the folder itself."""

    files: list[str]  # recordings and images, sorted
    missing: list[str]  # dangling links to recordings and images
    others: list[str]  # other files and hidden folders
    folders: dict[str, list[str]]  # names of the sub-folders of each folder
    direct: Counter[str]  # number of `files` directly in each folder
    below: Counter[str]  # number of `files` at any depth in each folder

    def filled(self, folder: str) -> list[str]:
        """Returns the names of the sub-folders that hold recordings or images at any depth."""
        return [n for n in self.folders.get(folder, ()) if self.below[join(folder, n)]]

    def empty(self, folder: str) -> list[str]:
        """Returns the names of the other sub-folders."""
        return [n for n in self.folders.get(folder, ()) if not self.below[join(folder, n)]]


def join(folder: str, name: str) -> str:
    """Returns the path of `name` in `folder`, which may be ''."""
    return f"{folder}/{name}" if folder else name


def read_tree(root: str, unreadable: list[OSError] | None = None) -> Tree:
    """Returns the tree below `root`.

    `unreadable` collects the errors of folders that cannot be read; `None`: they are raised.
    """
    files, missing, others, subfolders = [], [], [], []
    lists = {"missing": missing, "other": others}
    for path, kind in walk(root, unreadable=unreadable, folders=subfolders):
        lists.get(kind, files).append(path)
    folders = defaultdict(list)
    for folder in subfolders:
        parent, _, name = folder.rpartition("/")
        folders[parent].append(name)
    direct = Counter(path.rpartition("/")[0] for path in files)
    below = Counter()
    for folder, count in direct.items():
        while folder:
            below[folder] += count
            folder = folder.rpartition("/")[0]
        below[""] += count
    return Tree(files, missing, others, dict(folders), direct, below)


def walk(
    folder: str,
    prefix: str = "",
    above: tuple = (),
    unreadable: list[OSError] | None = None,
    folders: list[str] | None = None,
) -> Iterator[tuple[str, Kind | Literal["missing", "other"]]]:
    """Yields (path, kind) of every file below `folder`, following links.

    'missing' is a dangling link to a recording or image, 'other' any other file or a hidden folder.

    Args:
      folder: where to start.
      prefix: prepended to each path.
      above: for internal use: the parent folders, to stop at links in a circle.
      unreadable: collects the errors of unreadable folders; `None`: they are raised.
      folders: collects the paths of all sub-folders that are not hidden.
    """
    here, entries = _identity_and_entries(folder, unreadable)
    if here in above:
        return
    for entry in entries:
        path, kind = prefix + entry.name, kind_of(entry.name)
        linked = entry.is_symlink()  # an entry's own methods are fast, but raise for some links
        if is_hidden(entry.name):
            yield path, "other"
        elif os.path.isdir(entry.path) if linked else entry.is_dir():
            if folders is not None:
                folders.append(path)
            yield from walk(entry.path, path + "/", (*above, here), unreadable, folders)
        elif kind and (os.path.isfile(entry.path) if linked else entry.is_file()):
            yield path, kind
        else:
            yield path, "missing" if kind and linked else "other"


def _identity_and_entries(
    folder: str, unreadable: list[OSError] | None
) -> tuple[tuple[int, int], list[os.DirEntry]]:
    """Returns what identifies a folder, however it is reached, and its entries by name."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if unreadable is None:
            raise
        unreadable.append(error)
        return (0, 0), []
    return (status.st_dev, status.st_ino), ordered
