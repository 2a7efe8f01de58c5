"""Lists of files for a split, such as `validation_list.txt` of Speech Commands."""

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from meljax.data.file_tree import Tree, join
from meljax.data.split_names import split_of
from meljax.util.files import decode_text
from meljax.util.phrases import count


class SplitLists(NamedTuple):
    """What the lists say."""

    split_of: dict[str, str]  # split by the path of a file, relative to the root
    notes: list[str]  # one line each
    warnings: list[str]  # one line each


def read_split_lists(root: Path, tree: Tree, base: str, files: Mapping[str, str]) -> SplitLists:
    """Returns the splits of files by the lists below `root` and in the folder above it.

    A line is a path relative to the list, to `base` or to `root`, perhaps without suffix or with a
    label after it. `files`: the split of each path by its folder, '' if undecided.
    """
    found = SplitLists({}, [], [])
    stems = {os.path.splitext(path)[0]: path for path in files}
    with contextlib.suppress(OSError):
        above = [f"../{name}" for name in sorted(os.listdir(root / ".."))]
    for path in (*tree.others, *above):
        split = _split(path)
        if split and os.path.isfile(root / path):  # not a pipe or a dangling link
            folders = dict.fromkeys((os.path.dirname(path), base, ""))
            _read_list(root, path, split, folders, files, stems, found)
    return found


def _split(path: str) -> str:
    stem, suffix = os.path.splitext(os.path.basename(path))
    return split_of(stem) if suffix.lower() in (".txt", ".lst") else ""


def _read_list(
    root: Path,
    path: str,
    split: str,
    folders: Collection[str],
    files: Mapping[str, str],
    stems: Mapping[str, str],
    found: SplitLists,
) -> None:
    taken, missing, again = 0, [], 0
    for line in _lines(root / path):
        readings = (
            join(folder, reading).removeprefix(f"../{root.resolve().name}/")
            for reading in _readings(line)
            for folder in folders
        )
        named = (each if each in files else stems.get(each, "") for each in readings)
        name = next(filter(None, named), "")
        if not name:
            missing.append(line)
        elif found.split_of.get(name, files[name]) in ("", "train", split):
            found.split_of[name] = split
            taken += 1
        else:
            again += 1
    if taken:
        found.notes.append(f"split {split}: {count(taken, 'file')} listed in {path!r}")
    if missing and (taken or ("list" in path.lower() and not path.startswith(".."))):
        found.warnings.append(
            f"{count(len(missing), 'line')} of {path!r} ignored: no such file in a class, e.g. "
            f"{missing[0]!r}"
        )
    if again:
        what = "its file is" if again == 1 else "their files are"
        found.warnings.append(
            f"{count(again, 'line')} of {path!r} ignored: {what} in another split"
        )


def _lines(file: Path) -> list[str]:
    text = decode_text(file.read_bytes(), errors="surrogateescape")
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines())
    return [line for line in lines if line]


def _readings(line: str) -> Iterator[str]:
    """Yields the paths that a line may mean: all of it, or without the label at its end."""
    yield line
    for separator in (r"[\t,;]", r"\s+(?=\S+$)"):
        before, *after = re.split(separator, line, maxsplit=1)
        if after:
            yield before.strip()
