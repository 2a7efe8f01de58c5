"""Finds the files that a table names, below a folder."""

import contextlib
import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from meljax.config import DataConfig
from meljax.data.file_tree import Tree, read_tree
from meljax.data.manifest import kind_name, kind_of
from meljax.data.split_names import split_of
from meljax.util.errors import UserError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Found(NamedTuple):
    """The files that a cell may name."""

    paths: Sequence[str]  # relative to the folder if below it
    searched: bool = False  # not at the place that the cell names
    short: bool = False  # the cell has no suffix
    problem: str = "no such file"  # if there are no paths


def files_root(data: DataConfig, default: Path) -> Path:
    """Returns the folder of the files; raises `UserError` if `data.root` is not a folder."""
    if not data.root:
        return default
    root = Path(os.path.expanduser(data.root))
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root: {data.root!r} {problem}; name the folder of the files")
    return root


def normal(text: str) -> str:
    """Returns a text in its composed Unicode form (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_url(cell: str) -> bool:
    """Tells whether a cell names something that is not a local file."""
    return bool(_URL.match(cell)) and not cell.lower().startswith("file://")


class Finder:
    """Finds files below a folder.

    If a file is not where it should be, the folder is walked once, unless its `tree` is given.
    """

    def __init__(self, root: Path, tree: Tree | None = None):
        self.root = root
        self._base = os.path.abspath(root)
        self._listings: dict[str, tuple[str, set[str]]] = {}
        self._tree = tree
        self._paths: dict[str, list[str]] = defaultdict(list)
        self._names: dict[str, list[str]] = defaultdict(list)

    def find_all(self, cells: Iterable[str]) -> dict[str, Found]:
        """Returns what each cell names.

        A file that another cell names directly is not what a search by name looks for, nor is one
        that two different names lead to.
        """
        found = {cell: self._direct(cell) for cell in dict.fromkeys(cells)}
        listed = {path for each in found.values() for path in each.paths}
        for cell, direct in found.items():
            if not direct.paths:
                other = self._search(cell)
                taken = other.searched and all(path in listed for path in other.paths)
                found[cell] = Found(()) if taken else other
        names = defaultdict(set)
        for cell, each in found.items():
            names[tuple(each.paths)].add(os.path.normpath(normal(_as_path(cell))))
        for cell, each in found.items():
            if each.searched and len(names[tuple(each.paths)]) > 1:
                found[cell] = Found(())
        return found

    def find(self, cell: str) -> Found:
        """Returns what one cell names."""
        direct = self._direct(cell)
        return direct if direct.paths else self._search(cell)

    @property
    def tree(self) -> Tree:
        """The files below the folder."""
        if self._tree is None:
            self._tree = read_tree(str(self.root), unreadable=[])
        return self._tree

    def left_out(self, used: Iterable[str], tables: Iterable[str]) -> dict[str, int]:
        """Returns the number of other files by kind; `tables` are not counted."""
        known = {*used, *tables}
        every = (*self.tree.files, *self.tree.missing, *self.tree.others)
        return Counter(kind_name(path) for path in every if path not in known)

    def unlisted(self, used: Iterable[str]) -> dict[str, int]:
        """Returns the number of recordings and images beside those `used`, by suffix."""
        known = set(used)
        if self._tree:
            folders = {os.path.dirname(path) for path in known}
            beside = (path for path in self._tree.files if os.path.dirname(path) in folders)
        else:
            beside = (prefix + name for prefix, names in self._listings.values() for name in names)
        rest = (path for path in beside if kind_of(path) and path not in known)
        return Counter(f"{kind_name(path)} not in the table" for path in rest)

    def _direct(self, cell: str) -> Found:
        folder, slash, name = _as_path(cell).rpartition("/")
        folder = folder or slash
        if folder not in self._listings:
            self._listings[folder] = self._listing(folder)
        prefix, names = self._listings[folder]
        return Found((prefix + name,)) if name in names else Found(())

    def _listing(self, folder: str) -> tuple[str, set[str]]:
        """Returns the start of paths in a folder, and the names of its files.

        One listing is faster than a look at each file.
        """
        full = os.path.normpath(os.path.join(self._base, folder))
        prefix = os.path.join(os.path.normpath(folder), "")
        above = os.path.join(self._base, "")
        if os.path.join(full, "").startswith(above):
            prefix = os.path.join(full, "")[len(above) :]
        names = set()
        with contextlib.suppress(OSError, ValueError), os.scandir(full) as entries:
            names.update(entry.name for entry in entries if entry.is_file())
        return prefix, names

    def _index(self) -> None:
        if self._paths:
            return
        for path in self.tree.files:
            key = normal(path)
            for each in (key, os.path.splitext(key)[0] + ".*"):
                self._paths[each].append(path)
                self._names[os.path.basename(each)].append(path)

    def _search(self, cell: str) -> Found:
        """Searches by path, then by name; '.*' stands for a missing suffix."""
        if is_url(cell):
            return Found(())
        self._index()
        key = os.path.normpath(normal(_as_path(cell)))
        short = kind_of(key) is None
        key += ".*" * short
        if here := self._paths.get(key):
            return Found(here, False, short)
        named = self._names.get(os.path.basename(key), [])
        return Found(
            _closest([path for path in named if self._may_be(path, key)], key), True, short
        )

    def _may_be(self, path: str, wanted: str) -> bool:
        """Tells whether a file with the name in `wanted` may be meant, although it is elsewhere.

        It is not, if the folder that `wanted` names exists with other recordings or images; if the
        file is in a folder for another split; or if the names of the two folders differ only by
        numbers or the last letter.
        """
        here, there = normal(path).split("/")[:-1], wanted.split("/")[:-1]
        for start in range(len(there)):
            folder = "/".join(there[start:])
            if self.tree.direct[folder] and not "/".join(here).startswith(folder):
                return False
        splits = {next(filter(None, map(split_of, parts[::-1])), "") for parts in (here, there)}
        if len(splits - {""}) > 1:
            return False
        return not here or not there or not _counted_alike(here[-1], there[-1])


def _counted_alike(one: str, other: str) -> bool:
    """Tells whether names differ in their numbers or last letter only: 'day1' and 'day2'."""
    if one == other:
        return False
    same = re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other)
    return same or (len(one) == len(other) > 1 and one[:-1] == other[:-1])


def _as_path(cell: str) -> str:
    """Returns a path with '/'; reads Windows paths and file:// as well."""
    if cell.lower().startswith("file://"):
        cell = unquote(cell[len("file://") :])
    return cell.replace("\\", "/")


def _closest(paths: Sequence[str], wanted: str) -> Sequence[str]:
    """Returns the paths that share the most folders with `wanted`, counted from the name."""

    def shared(path: str) -> int:
        pairs = zip(normal(path).split("/")[-2::-1], wanted.split("/")[-2::-1], strict=False)
        return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))

    most = max(map(shared, paths), default=0)
    return [path for path in paths if shared(path) == most]
