"""Any set – folder, CSV, TFDS or the embedded voices – as arrays, labelled and divided."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from meljax import progress
from meljax.config import Config
from meljax.data import cache as decoded
from meljax.data import files, images, reader, records, split, tfds, voices
from meljax.data.files import Bad, Item
from meljax.errors import BadFileError, UserError

T = TypeVar("T")
Side = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class VoiceSet:
    """A whole data set in memory.

    Attributes:
      kind: 'sound' or 'image'.
      classes: names, sorted; a label is an index into them.
      items: path, label and group of each item, sorted by path.
      sides: 'train', 'val' or 'test' for each item.
      digests: sha256 of each item's file, hexadecimal.
      arrays: int16 [samples] or uint8 [columns, height, channel] each: time comes first.
      floors: colour of silence of each picture; `None` for sound.
      ignored: number of files of other kinds.
      skipped: files that could not be used, where that is allowed.
      warnings: one line each, to be shown and kept.
    """

    kind: Literal["sound", "image"]
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    sides: tuple[Side, ...]
    digests: tuple[str, ...]
    arrays: tuple[Shaped[np.ndarray, "_ ..."], ...]
    floors: tuple[UInt8[np.ndarray, " channel"], ...] | None
    ignored: int
    skipped: tuple[Bad, ...]
    warnings: tuple[str, ...]

    def indices(self, side: Side) -> list[int]:
        """Returns which items stand on `side`."""
        return [i for i, s in enumerate(self.sides) if s == side]

    def labels(self, indices: list[int]) -> Int[np.ndarray, " n"]:
        """Returns the classes, as numbers, of the items `indices`."""
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[self.items[i].label] for i in indices], np.int32)

    @property
    def fingerprint(self) -> str:
        """Identifies names, labels, sides and contents of all items."""
        rows = zip(self.items, self.sides, self.digests, strict=True)
        text = "\n".join(f"{i.path}\0{i.label}\0{i.group}\0{s}\0{d}" for i, s, d in rows)
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class _Read(NamedTuple):
    """A set as it was read, before it is divided; fields as in `VoiceSet`."""

    kind: Literal["sound", "image"]
    items: tuple[Item, ...]
    digests: tuple[str, ...]
    arrays: tuple[np.ndarray, ...]
    floors: tuple[np.ndarray, ...] | None = None
    ignored: int = 0
    skipped: tuple[Bad, ...] = ()
    warnings: tuple[str, ...] = ()


def load(config: Config, cache: Path) -> VoiceSet:
    """Reads, checks and divides the set that `config.data` names.

    Raises:
      UserError: nothing to learn from, or files that cannot be used.
    """
    read = _from_listing(config, cache) if config.data.path else _embedded(config, cache)
    items, digests = read.items, read.digests
    sides = split.split_items(items, digests, config.data.val_fraction, config.train.seed)
    warnings = split.conflicting_duplicates(items, digests) + split.leaks(items, digests, sides)
    facts = read._asdict() | {"warnings": (*read.warnings, *warnings)}
    return VoiceSet(
        **facts, classes=tuple(sorted({item.label for item in items})), sides=tuple(sides)
    )


def pinned(config: Config, recorded: Mapping[str, Any]) -> Config:
    """Returns settings that say which version of a TFDS set, and where; it is fetched if need be.

    Args:
      config: the settings.
      recorded: the settings, by key, that the run began with, whose version is kept; or nothing.
    """
    path, tfds_dir = config.data.path, config.data.tfds_dir
    if not tfds.is_name(path):
        return config
    before = recorded.get("data.path", "")
    if before == path or before.startswith((path + ":", path + "/")):
        path, tfds_dir = before, tfds_dir or recorded.get("data.tfds_dir", "")
    else:
        path, tfds_dir = tfds.pin(path, tfds_dir), str(tfds.root_of(tfds_dir))
    data = dataclasses.replace(config.data, path=path, tfds_dir=tfds_dir)
    return dataclasses.replace(config, data=data)


def find(path: str, tfds_dir: str, label: str, group: str, training: bool = True) -> files.Listing:
    """Lists what a folder, a CSV or a TFDS set holds; see `files.scan` and `records.scan`."""
    if tfds.is_name(path):
        return records.scan(path, tfds_dir, label, group, training)
    return files.scan(path, label, group, training)


def _embedded(config: Config, cache: Path) -> _Read:
    if config.mel.sample_rate != voices.SAMPLE_RATE:
        raise UserError(
            f"mel.sample_rate must be {voices.SAMPLE_RATE} for the embedded voices "
            f"(data.path is empty), not {config.mel.sample_rate}"
        )
    if config.data.label != "label" or config.data.group not in ("", "group"):
        raise UserError(
            "data.label and data.group name columns of a CSV or features of a TFDS set, but "
            "data.path is empty, which means the embedded voices"
        )
    with progress.counter("making the embedded voices, once") as count:
        made = voices.load(cache, progress=count)
    items = tuple(map(Item, made.names, made.labels))
    digests = tuple(hashlib.sha256(clip.tobytes()).hexdigest() for clip in made.clips)
    return _Read("sound", items, digests, made.clips)


def _from_listing(config: Config, cache: Path) -> _Read:
    data = config.data
    listing = find(data.path, data.tfds_dir, data.label, data.group)
    if listing.kind == "image" and data.image_size and data.window:
        raise UserError(
            "data.window is for recordings, and for pictures as they are "
            "(data.image_size=0); resized pictures are seen whole"
        )
    read = reader.make_reader(listing.kind, data.image_size, config.mel.sample_rate)
    name = f"{data.tfds_dir} {data.path}"
    if not tfds.is_name(data.path):
        name = os.path.abspath(os.path.expanduser(data.path))
    settings = f"{listing.kind} {data.image_size} {config.mel.sample_rate} {reader.decoders()}"
    file = decoded.file_of(cache / "decoded", name, settings)
    results = _read_cached(listing, read, file)
    bad = (*listing.bad, *(result for result in results if isinstance(result, Bad)))
    if data.on_bad_file == "stop":
        check_bad(data.path, bad, "--config.data.on_bad_file=skip")
    good = [(i, r) for i, r in zip(listing.items, results, strict=True) if not isinstance(r, Bad)]
    items = tuple(item for item, _ in good)
    check_left(data.path, listing.items, items, bad)
    digests, arrays = zip(*(result for _, result in good), strict=True)
    floors = None
    if listing.kind == "image":
        arrays = _same_channels(arrays)
        _check_heights(items, arrays)
        floors = tuple(images.floor_colour(array) for array in arrays)
    return _Read(
        listing.kind, items, digests, arrays, floors, listing.ignored, bad, listing.warnings
    )


def check_bad(path: str, bad: Sequence[Bad], skip: str) -> None:
    """Raises `UserError`, listing all that cannot be used, if there is any.

    Args:
      path: what was read.
      bad: what cannot be used.
      skip: what to say in order to do without them.
    """
    if not bad:
        return
    what, remedy = "files or folders", "mend or remove them"
    if tfds.is_name(path):
        what, remedy = "examples", "make or fetch the set anew"
    raise UserError(
        f"{len(bad)} {what} in {path} cannot be used (listed above); {remedy}, or do without "
        f"them: {skip}",
        map(shown, bad),
    )


def check_left(path: str, all_of: Sequence[Item], left: Sequence[Item], bad: Sequence[Bad]) -> None:
    """Raises `UserError` unless there is enough without what cannot be used.

    Args:
      path: what was read.
      all_of: its items.
      left: those of them that can be used.
      bad: what cannot, to be listed.
    """
    problem = ""
    if len({item.label for item in left}) < 2:
        problem = "fewer than two classes are"
    for side in ("train", "val"):
        if side in {item.split for item in all_of} - {item.split for item in left}:
            problem = f"nothing is in its split {side!r}"
    if problem:
        raise UserError(f"{problem} left in {path} without unusable files", map(shown, bad))


def shown(bad: Bad) -> str:
    """Returns a line, whatever stands in a file's name."""
    path = bad.path if bad.path.isprintable() else repr(bad.path)
    return f"{path}: {bad.reason}"


def _read_cached(
    listing: files.Listing, read: reader.Reader, file: Path
) -> list[tuple[str, np.ndarray] | Bad]:
    """Returns what `read_all` does; what lies in the cache `file` is taken from there."""
    # Before anything is read: what changes later will be told from what was read.
    stamps = {item.path: listing.stamp(item) for item in listing.items}
    kept = {
        path: each
        for path, each in decoded.load(file).items()
        if each.stamp and each.stamp == stamps.get(path)
    }
    rest = [item for item in listing.items if item.path not in kept]
    results = dict(
        zip(rest, read_all(dataclasses.replace(listing, items=tuple(rest)), read), strict=True)
    )
    new = {
        item.path: decoded.Decoded(stamps[item.path], *result)
        for item, result in results.items()
        if stamps[item.path] and not isinstance(result, Bad)
    }
    if new:
        decoded.save(file, kept | new)
    return [
        tuple(kept[item.path][1:]) if item.path in kept else results[item] for item in listing.items
    ]


def read_all(
    listing: files.Listing, read: Callable[[bytes], T], what: str = "reading"
) -> list[tuple[str, T] | Bad]:
    """Returns each item's sha256 and what `read` makes of it, or why it cannot be used.

    In parallel: the decoders release Python's lock.
    """

    def one(item: Item) -> tuple[str, T] | Bad:
        try:
            data = listing.read(item)
            return hashlib.sha256(data).hexdigest(), read(data)
        except BadFileError as error:
            return Bad(item.path, str(error))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(one, listing.items)
        return list(progress.track(results, len(listing.items), what))


def _same_channels(
    arrays: tuple[UInt8[np.ndarray, "_ _ _"], ...],
) -> tuple[UInt8[np.ndarray, "_ _ channel"], ...]:
    """Grey pictures stay one channel if every one is grey; among coloured ones they are RGB."""
    if len({array.shape[2] for array in arrays}) == 1:
        return arrays
    return tuple(reader.with_channels(array, 3) for array in arrays)


def _check_heights(items: tuple[Item, ...], arrays: tuple[np.ndarray, ...]) -> None:
    first = {}
    for item, array in zip(items, arrays, strict=True):
        first.setdefault(array.shape[1], item.path)
    if len(first) > 1:
        (one, a), (other, b), *_ = first.items()
        raise UserError(
            f"pictures differ in height ({a}: {one} pixels, {b}: {other}); "
            "set data.image_size to resize them all"
        )
