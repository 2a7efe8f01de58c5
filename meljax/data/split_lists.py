"""Lists of files for validation and test, such as `validation_list.txt` of Speech Commands."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from meljax.data.file_tree import Tree, join
from meljax.data.split_names import split_of
from meljax.util.phrases import count


class SplitLists(NamedTuple):
    """What the lists say."""

    split_of: dict[str, str]  # split by the path of a file, relative to the root
    notes: list[str]  # one line each
    warnings: list[str]  # one line each


def read_split_lists(root: Path, tree: Tree, base: str, files: Mapping[str, str]) -> SplitLists:
    """Returns the splits of files by the lists in `base` and in the folders above it.

    The lines are paths relative to the list or to `base`. `files`: the split of each path by its
    folder, '' if undecided.
    """
    found = SplitLists({}, [], [])
    for path in tree.others:
        folder, _, name = path.rpartition("/")
        stem, suffix = os.path.splitext(name)
        split = split_of(stem) if suffix.lower() == ".txt" else ""
        if split in ("val", "test") and f"{base}/".startswith(join(folder, "")):
            if not os.path.isfile(root / path):  # a pipe or dangling link
                continue
            _read_list(root, path, split, (folder, base), files, found)
    return found


def _read_list(
    root: Path,
    path: str,
    split: str,
    folders: Collection[str],
    files: Mapping[str, str],
    found: SplitLists,
) -> None:
    text = (root / path).read_text("utf-8-sig", errors="surrogateescape")
    lines = [line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines()]
    taken, missing, again = 0, [], 0
    for line in filter(None, lines):
        name = next((n for n in (join(folder, line) for folder in folders) if n in files), "")
        if not name:
            missing.append(line)
        elif found.split_of.get(name, files[name]) in ("", "train", split):
            found.split_of[name] = split
            taken += 1
        else:
            again += 1
    if taken:
        found.notes.append(f"split {split}: {taken:,} files listed in {path!r}")
    if missing and (taken or "list" in path.lower()):
        found.warnings.append(
            f"{count(len(missing), 'line')} of {path!r} ignored: no such file in a class, e.g. "
            f"{missing[0]!r}"
        )
    if again:
        what = "its file is" if again == 1 else "their files are"
        found.warnings.append(
            f"{count(again, 'line')} of {path!r} ignored: {what} in another split"
        )
