"""Lists of files for a split, such as `validation_list.txt` of Speech Commands."""

import contextlib
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from meljax.data.file_tree import Tree, join
from meljax.data.manifest import Item, kind_of
from meljax.data.split_names import split_of, splits_of
from meljax.util.errors import UserError
from meljax.util.files import decode_text
from meljax.util.phrases import count


class SplitLists(NamedTuple):
    """What the lists say."""

    split_of: dict[str, str]  # split by the path of a file, relative to the root
    notes: list[str]  # one line each
    warnings: list[str]  # one line each


def read_split_lists(root: Path, tree: Tree, train: str, items: Sequence[Item]) -> SplitLists:
    """Returns the splits of items by the lists below `root` and in the folder above it.

    A line is a path relative to the list, to `root`, or to the folder of the classes; perhaps
    without suffix, or with a label beside it. `train`: the folder that holds the classes of the
    training split.

    Raises:
      UserError: the lists have labels that contradict the folders.
    """
    found = SplitLists({}, [], [])
    by_stem = {os.path.splitext(item.path)[0]: item for item in items}
    by_path = {item.path: item for item in items} | by_stem
    labels: dict[str, set[str]] = defaultdict(set)
    for path, split in split_lists(root, tree):
        above = os.path.dirname(path)
        in_splits = any(item.split for item in items) and not f"{above}/".startswith(f"{train}/")
        folders = dict.fromkeys((above, "") if in_splits else (above, train, ""))
        _read_list(root, path, split, folders, by_path, labels, found)
    if contradiction := next((each for each in labels if len(labels[each]) > 1), ""):
        one, other, *_ = sorted(labels[contradiction])
        raise UserError(
            f"data.path: the lists in {str(root)!r} give files in class folder {contradiction!r} "
            f"different labels ({one!r} and {other!r}); write them as one table with a header such "
            "as path,label,split"
        )
    return found


def split_lists(root: Path, tree: Tree) -> list[tuple[str, str]]:
    """Returns (path, split) of the lists in and above the root.

    A folder's lists count only if each is for a different split.
    """
    above = []
    if not split_of(root.resolve().name):
        with contextlib.suppress(OSError):
            above = [f"../{name}" for name in sorted(os.listdir(root / ".."))]
    folders = defaultdict(list)
    for path in (*tree.others, *above):
        stem, suffix = os.path.splitext(os.path.basename(path))
        if suffix.lower() in (".txt", ".lst"):
            folders[os.path.dirname(path)].append((stem, path))
    found = []
    for lists in folders.values():
        splits = splits_of([stem for stem, _ in lists])
        once = Counter(splits.values())
        found += [(path, splits[stem]) for stem, path in lists if once[splits.get(stem, "")] == 1]
    return [(path, split) for path, split in found if os.path.isfile(root / path)]


def _read_list(
    root: Path,
    path: str,
    split: str,
    folders: Collection[str],
    by_path: Mapping[str, Item],
    labels: dict[str, set[str]],
    found: SplitLists,
) -> None:
    taken, missing, again = 0, [], 0
    for line in _lines(root / path):
        item = None
        for reading, label in _readings(line):
            names = (_normal(join(folder, reading), root) for folder in folders)
            if item := next((by_path[name] for name in names if name in by_path), None):
                labels[item.label] |= {label} - {""}
                break
        if item is None:
            missing.append(line)
        elif found.split_of.get(item.path, item.split) in ("", "train", split):
            found.split_of[item.path] = split
            taken += 1
        else:
            again += 1
    if taken:
        found.notes.append(f"split {split}: {count(taken, 'file')} listed in {path!r}")
    looks_like_list = any(kind_of(line) or kind_of(line.split()[0]) for line in missing)
    if missing and (taken or (looks_like_list and not path.startswith(".."))):
        found.warnings.append(
            f"{count(len(missing), 'line')} of {path!r} ignored: no such file in a class, e.g. "
            f"{missing[0]!r}"
        )
    if again:
        what = "its file is" if again == 1 else "their files are"
        found.warnings.append(
            f"{count(again, 'line')} of {path!r} ignored: {what} in another split"
        )


def _normal(path: str, root: Path) -> str:
    """Returns a list's path relative to the root, without the root's own name at its start."""
    path, name = posixpath.normpath(path), root.resolve().name
    return path.removeprefix("../").removeprefix(f"{name}/")


def _lines(file: Path) -> list[str]:
    text = decode_text(file.read_bytes(), errors="surrogateescape")
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines())
    return [line for line in lines if line]


def _readings(line: str) -> Iterator[tuple[str, str]]:
    """Yields (path, label) as a line may mean: a path, or one with a label after or before it."""
    yield line, ""
    for separator in (r"[\t,;]", r"\s+(?=\S+$)"):
        before, *after = re.split(separator, line, maxsplit=1)
        if after:
            yield before.strip(), after[0].strip()
            yield after[0].strip(), before.strip()
