"""The manifest of a data set: its items with class, group and split, before they are decoded."""

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader, IOBase
from pathlib import Path
from typing import Literal

from meljax.features.frontend import Kind
from meljax.util.errors import BadFileError, UserError
from meljax.util.phrases import nearest, on_one_line

Split = Literal["train", "val", "test"]

KIND_OF_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp"), "image"),
    **dict.fromkeys((".tif", ".tiff", ".gif"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"), "audio"),
    **dict.fromkeys((".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".bw64"), "audio"),
    **dict.fromkeys((".m4a", ".m4b", ".aac", ".mp4", ".mov", ".3gp", ".wma", ".amr"), "audio"),
    **dict.fromkeys((".webm", ".mka", ".mkv", ".ac3", ".mp2"), "audio"),
}

SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir")

TIMESTAMP_RESOLUTION_NS = 2_000_000_000
"""Two writes within this time may get the same time stamp on some file systems."""


@dataclass(frozen=True)
class Item:
    """One recording or image of a manifest."""

    path: str  # with '/'; relative to the manifest's root, or absolute if it is so in a table
    label: str  # name of its class
    group: str = ""  # items of one group stay in one split; '': no group
    split: Split | Literal[""] = ""  # the given split; '': not decided yet
    start: float | None = None  # of a segment of the recording, in seconds; `None`: the whole file
    end: float | None = None

    @property
    def name(self) -> str:
        """The unique name of the item: its path, and the seconds of a segment."""
        if self.start is None:
            return self.path
        return f"{self.path} [{self.start:.12g}–{self.end:.12g} s]"


@dataclass(frozen=True)
class Bad:
    """An item that cannot be used, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        """Returns one line, whatever characters the path contains."""
        return f"{on_one_line(self.path)}: {self.reason}"


@dataclass(frozen=True)
class Manifest:
    """The items of a folder, table or TFDS set."""

    source: str  # path or name of the set, for messages
    root: str  # folder that the items' paths are relative to; '' for a TFDS set
    kind: Kind  # of all items
    items: tuple[Item, ...]  # sorted by path and start
    left_out: Mapping[str, int]  # number of other files and hidden folders by kind; see `kind_name`
    bad: tuple[Bad, ...]  # files and class folders that cannot be used, sorted by path
    open: Callable[[Item], IOBase]  # opens an item's file for reading; raises `BadFileError`
    stamp: Callable[[Item], str]  # changes with an item's content; '' if a change could be missed
    warnings: tuple[str, ...] = ()  # one line each
    notes: tuple[str, ...] = ()  # how the layout was understood, one line each

    def read(self, item: Item) -> bytes:
        """Returns the bytes of an item's file; raises `BadFileError` if it cannot be read."""
        return read_and_close(self.open(item))


def file_manifest(
    source: Path,
    root: Path,
    kind: Kind,
    items: Iterable[Item],
    left_out: Mapping[str, int],
    bad: Iterable[Bad],
    training: bool,
    notes: Iterable[str] = (),
) -> Manifest:
    """Returns the manifest of files; `training`: checks that the classes can be trained on."""
    items = tuple(sorted(items, key=lambda item: (item.path, item.start or 0)))
    bad = tuple(sorted(bad, key=lambda each: each.path))
    if training:
        check_classes(str(source), items, bad)
    return Manifest(
        source=str(source),
        root=str(root),
        kind=kind,
        items=items,
        left_out=left_out,
        bad=bad,
        open=lambda item: open_file(str(root / item.path)),
        stamp=lambda item: file_stamp(str(root / item.path)),
        notes=tuple(notes),
    )


def open_file(path: str) -> BufferedReader:
    """Opens a file for reading bytes; raises `BadFileError` if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would block
            raise BadFileError("not a file")
        return open(path, "rb")
    except OSError as error:
        raise BadFileError(error.strerror or str(error)) from None


def read_and_close(file: IOBase) -> bytes:
    """Returns the content of a file and closes it; raises `BadFileError` if it cannot be read."""
    with file:
        try:
            return file.read()
        except OSError as error:
            raise BadFileError(error.strerror or str(error)) from None


def file_stamp(path: str) -> str:
    """Returns a string that changes when a file is written or replaced.

    It is '' for a file changed within `TIMESTAMP_RESOLUTION_NS`: another write could leave the same
    time stamp.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    last = max(status.st_mtime_ns, status.st_ctime_ns)
    if time.time_ns() - last < TIMESTAMP_RESOLUTION_NS:
        return ""
    parts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return "-".join(map(str, parts))


def kind_of(path: str) -> Kind | None:
    """Returns the kind of a file by its suffix; `None` if it is neither recording nor image."""
    return KIND_OF_SUFFIX.get(os.path.splitext(path)[1].lower())


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, or made by an operating system."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def kind_name(path: str) -> str:
    """Returns how files that are left out are counted: '.txt', 'no suffix' or 'hidden'."""
    name = os.path.basename(path)
    if is_hidden(name):
        return "hidden"
    return os.path.splitext(name)[1].lower() or "no suffix"


def noun(kind: Kind, count: int = 2) -> str:
    """Returns 'recording' or 'image', in the plural unless `count` is 1."""
    return {"audio": "recording", "image": "image"}[kind] + ("" if count == 1 else "s")


def one(kind: Kind) -> str:
    """Returns 'a recording' or 'an image'."""
    return {"audio": "a recording", "image": "an image"}[kind]


def common_kind(source: Path, items: Sequence[Item]) -> Kind:
    """Returns the kind of all files; raises `UserError` if they are of both kinds."""
    paths = {"image": [], "audio": []}
    for item in items:
        paths[kind_of(item.path)].append(item.path)
    if all(paths.values()):
        seen = (f"{len(p)} {noun(kind, len(p))} (e.g. {p[0]!r})" for kind, p in paths.items())
        raise UserError(f"data.path: {str(source)!r} mixes {' and '.join(seen)}; keep one kind")
    return "image" if paths["image"] else "audio"


def check_groups(source: str, pairs: Collection[tuple[str, str]], group: str) -> None:
    """Raises `UserError` if each class is one group, which cannot be in two splits.

    `pairs` are the distinct pairs of label and group; `group` is the column or feature of groups.
    """
    labels, groups = {label for label, _ in pairs}, {name for _, name in pairs}
    if pairs and "" not in groups and len(labels) == len(groups) == len(pairs):
        raise UserError(
            f"data.group: {group!r} of {source!r} is the same as the label, so each class could be "
            "in one split only; name another column or feature, or set data.group=''"
        )


def check_classes(source: str, items: Iterable[Item], bad: Sequence[Bad] = ()) -> None:
    """Raises `UserError` unless train has two classes or more, and every class of val and test.

    `bad`: files and class folders that cannot be used, which may be the reason.
    """
    labels: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for item in items:
        labels[item.split or "train"].add(item.label)
    trained = labels["train"]
    if not trained:
        raise UserError(f"data.path: {source!r} has nothing to train on")
    for split in ("val", "test"):
        for name in sorted(labels[split] - trained):
            raise UserError(
                f"data.path: {source!r} has class {name!r} in {split} but not in "
                f"train{nearest(name, trained)}"
            )
    if len(trained) < 2:
        lost = f"; {len(bad):,} files or folders cannot be used, e.g. {bad[0]}" if bad else ""
        raise UserError(
            f"data.path: {source!r} has files of one class only, {min(trained)!r}; "
            f"expected at least two classes{lost}"
        )


def check_none_bad(manifest: Manifest, bad: Sequence[Bad], skip: str) -> None:
    """Raises `UserError` that lists `bad`, if there are any; `skip` is the setting to skip them."""
    if not bad:
        return
    alone = len(bad) == 1
    what, them = ("file or folder", "it") if alone else ("files or folders", "them")
    remedy = f"fix or remove {them}"
    if not manifest.root:
        what = "example" if alone else "examples"
        remedy = "build or download the set again"
    raise UserError(
        f"{len(bad)} {what} in {manifest.source} cannot be used (listed above); {remedy}, or set "
        f"{skip} to skip {them}",
        map(str, bad),
    )


def check_enough_left(manifest: Manifest, left: Collection[Item], bad: Sequence[Bad]) -> None:
    """Raises `UserError` that lists `bad`, if the usable items have one class or lack a split."""
    problem = ""
    if len({item.label for item in left}) < 2:
        problem = "fewer than two classes"
    for split in ("train", "val"):
        if split in {item.split for item in manifest.items} - {item.split for item in left}:
            problem = f"nothing in split {split!r}"
    if problem:
        raise UserError(
            f"after skipping unusable files, {manifest.source} has {problem}", map(str, bad)
        )
