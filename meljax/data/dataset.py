"""Loads a folder, CSV, TFDS set or the embedded voices as labeled, split arrays."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from meljax.config import Config
from meljax.data import decoded_cache, synthetic
from meljax.data.decode import decoder
from meljax.data.decoded_cache import CachedItem
from meljax.data.manifest import Bad, Item, Manifest, Split, check_enough_left, check_none_bad
from meljax.data.sources import read_manifest
from meljax.data.split import conflicting_duplicates, leaks, split_items
from meljax.data.tfds import catalog
from meljax.features.frontend import Kind
from meljax.features.windows import floor_color
from meljax.util.devices import cores
from meljax.util.errors import BadFileError, UserError
from meljax.util.parallel import map_ahead
from meljax.util.progress import track
from meljax.util.version import DECODING, versions


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A whole data set in memory."""

    kind: Kind
    classes: tuple[str, ...]  # sorted; a label is an index into them
    items: tuple[Item, ...]  # sorted by path
    splits: tuple[Split, ...]  # of each item
    digests: tuple[str, ...]  # sha256 of each item's file, hexadecimal
    arrays: tuple[Shaped[np.ndarray, "_ ..."], ...]  # decoded items; see `decoder.Decoder`
    floors: tuple[UInt8[np.ndarray, " channel"], ...] | None = None  # padding color of each image
    ignored: int = 0  # number of files of other kinds
    skipped: tuple[Bad, ...] = ()  # unusable files
    warnings: tuple[str, ...] = ()  # one line each

    def indices(self, split: Split) -> list[int]:
        """Returns the indices of the items in `split`."""
        return [i for i, s in enumerate(self.splits) if s == split]

    def labels(self, indices: list[int]) -> Int[np.ndarray, " n"]:
        """Returns the labels of the items at `indices`."""
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[self.items[i].label] for i in indices], np.int32)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the paths, labels, groups, splits and contents of all items."""
        rows = zip(self.items, self.splits, self.digests, strict=True)
        text = "\n".join(f"{i.path}\0{i.label}\0{i.group}\0{s}\0{d}" for i, s, d in rows)
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def resolve_set(config: Config, recorded: Mapping[str, Any]) -> Config:
    """Returns `config` with the version and folder of a local TFDS set filled in.

    A set that must be downloaded keeps its name; see `download_set`.

    Args:
      config: the settings.
      recorded: flat settings of the run to resume, whose version is kept; empty for a new run.

    Raises:
      UserError: there is no such set.
    """
    path, tfds_dir = config.data.path, config.data.tfds_dir
    if not catalog.is_name(path):
        return config
    before = recorded.get("data.path", "")
    if before == path or before.startswith((path + ":", path + "/")):
        path, tfds_dir = before, tfds_dir or recorded.get("data.tfds_dir", "")
    else:
        path = str(catalog.find_local(path, tfds_dir) or path)
        tfds_dir = str(catalog.root_of(tfds_dir))
    data = dataclasses.replace(config.data, path=path, tfds_dir=tfds_dir)
    return dataclasses.replace(config, data=data)


def download_set(config: Config) -> Config:
    """Downloads a TFDS set if needed; returns `config` with its version filled in.

    Raises:
      UserError: there is no such set, or it cannot be downloaded.
    """
    if not catalog.is_name(config.data.path):
        return config
    name = catalog.find_or_download(config.data.path, config.data.tfds_dir)
    data = dataclasses.replace(config.data, path=str(name))
    return dataclasses.replace(config, data=data)


def load(config: Config, cache: Path) -> Dataset:
    """Reads, checks and splits the set that `config.data` names.

    Decoded files are cached in `cache`; see `files.cache_dir`.

    Raises:
      UserError: the set cannot be used, or has too few items.
    """
    return _load_manifest(config, cache) if config.data.path else _load_voices(config, cache)


def _make_dataset(
    config: Config,
    items: tuple[Item, ...],
    digests: tuple[str, ...],
    warnings: tuple[str, ...] = (),
    **attributes: Any,
) -> Dataset:
    """Splits the items and adds warnings about them; `attributes` are the set's other ones."""
    splits = tuple(split_items(items, digests, config.data.val_fraction, config.train.seed))
    warnings = (*warnings, *conflicting_duplicates(items, digests), *leaks(items, digests, splits))
    return Dataset(
        classes=tuple(sorted({item.label for item in items})),
        items=items,
        splits=splits,
        digests=digests,
        warnings=warnings,
        **attributes,
    )


def _load_voices(config: Config, cache: Path) -> Dataset:
    if config.mel.sample_rate != synthetic.SAMPLE_RATE:
        raise UserError(
            f"mel.sample_rate must be {synthetic.SAMPLE_RATE} for the embedded voices "
            f"(data.path is empty), not {config.mel.sample_rate}"
        )
    if config.data.label != "label" or config.data.group not in ("", "group"):
        raise UserError(
            "data.label and data.group name columns of a CSV or features of a TFDS set, but "
            "data.path is empty, which selects the embedded voices"
        )
    voices = synthetic.load(cache)
    items = tuple(map(Item, voices.names, voices.labels))
    return _make_dataset(config, items, voices.digests, kind="audio", arrays=voices.clips)


def _load_manifest(config: Config, cache: Path) -> Dataset:
    data = config.data
    manifest = read_manifest(data.path, data.tfds_dir, data.label, data.group)
    if manifest.kind == "image" and data.image_size and data.window:
        raise UserError(
            "data.window does not apply to resized images, which are used whole; set "
            "data.image_size=0 or data.window=0"
        )
    results = _read_cached(config, manifest, cache)
    bad = (*manifest.bad, *(result for result in results if isinstance(result, Bad)))
    if data.on_bad_file == "stop":
        check_none_bad(manifest, bad, "data.on_bad_file=skip")
    good = [(i, r) for i, r in zip(manifest.items, results, strict=True) if not isinstance(r, Bad)]
    items = tuple(item for item, _ in good)
    check_enough_left(manifest, items, bad)
    arrays = tuple(content.value for _, content in good)
    floors = None
    if manifest.kind == "image":
        if len({array.shape[2] for array in arrays}) > 1:  # gray and RGB images
            arrays = tuple(decoder.with_channels(array, 3) for array in arrays)
        _check_heights(items, arrays)
        floors = tuple(floor_color(array) for array in arrays)
    return _make_dataset(
        config,
        items,
        tuple(content.digest for _, content in good),
        manifest.warnings,
        kind=manifest.kind,
        arrays=arrays,
        floors=floors,
        ignored=manifest.ignored,
        skipped=bad,
    )


class Content(NamedTuple):
    """The content of an item."""

    digest: str  # sha256 of its file, hexadecimal
    value: Any  # decoded


def _read_cached(config: Config, manifest: Manifest, cache: Path) -> list[Content | Bad]:
    """Returns the decoded array of each item, from the cache if its file has not changed."""
    data, rate = config.data, config.mel.sample_rate
    name = f"{data.tfds_dir} {data.path}"
    if not catalog.is_name(data.path):
        name = os.path.abspath(os.path.expanduser(data.path))
    settings = f"{manifest.kind} {data.image_size} {rate} {versions(DECODING)}"
    file = decoded_cache.cache_file(cache, name, settings)
    # Stamps are taken before reading, so that a file changed meanwhile is read again next time.
    stamps = {item.path: manifest.stamp(item) for item in manifest.items}
    kept = {
        path: each
        for path, each in decoded_cache.load(file).items()
        if each.stamp and each.stamp == stamps.get(path)
    }
    rest = [item for item in manifest.items if item.path not in kept]
    decode = decoder.make_decoder(manifest.kind, data.image_size, rate)
    results = dict(zip(rest, read_all(manifest, rest, decode), strict=True))
    new = {
        item.path: CachedItem(stamps[item.path], *result)
        for item, result in results.items()
        if stamps[item.path] and not isinstance(result, Bad)
    }
    if new:
        decoded_cache.save(file, kept | new)
    return [
        Content(*kept[item.path][1:]) if item.path in kept else results[item]
        for item in manifest.items
    ]


def read_all(
    manifest: Manifest, items: Sequence[Item], decode: Callable[[bytes], Any], what: str = "reading"
) -> list[Content | Bad]:
    """Returns the decoded content of each item, or the reason why it cannot be used.

    `decode` is called in threads and should release the GIL. `what` is the progress bar's title.
    """

    def read(item: Item) -> Content | Bad:
        try:
            data = manifest.read(item)
            return Content(hashlib.sha256(data).hexdigest(), decode(data))
        except BadFileError as error:
            return Bad(item.path, str(error))

    workers = cores()
    return list(track(map_ahead(read, items, workers, 2 * workers), len(items), what))


def _check_heights(items: tuple[Item, ...], arrays: tuple[np.ndarray, ...]) -> None:
    first = {}
    for item, array in zip(items, arrays, strict=True):
        first.setdefault(array.shape[1], item.path)
    if len(first) > 1:
        (one, a), (other, b), *_ = first.items()
        raise UserError(
            f"images differ in height ({a}: {one} pixels, {b}: {other}); "
            "set data.image_size to resize them all"
        )
