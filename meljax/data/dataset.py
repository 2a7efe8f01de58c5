"""Loads a folder, table, TFDS set or the embedded voices as labeled, split arrays."""

import dataclasses
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from meljax.config import Config, DataConfig
from meljax.data import decoded_cache, recordings, synthetic
from meljax.data.background import check_background, cut_background
from meljax.data.borders import border_warnings
from meljax.data.classes import describe_items, describe_small, suspicious_classes
from meljax.data.decode import decoder
from meljax.data.decode.decoder import Decoded
from meljax.data.decoded_cache import CachedItem
from meljax.data.manifest import Bad, Item, Manifest, Split, check_enough_left, check_none_bad
from meljax.data.read_files import Content, OpenFile, read_all
from meljax.data.segments import OutsideError, read_segments
from meljax.data.sources import check_exists, read_manifest
from meljax.data.split import (
    classes_without_val,
    conflicting_duplicates,
    leaks,
    small_classes,
    split_items,
    unused_split_folders,
)
from meljax.data.tfds import catalog
from meljax.features.frontend import Kind, crop_of
from meljax.features.samples import is_silent
from meljax.util.errors import UserError
from meljax.util.phrases import count, listed
from meljax.util.version import DECODING, versions

FILE_KEYS = (
    *("label", "group", "root", "file_column", "split_column", "start_column", "end_column"),
    *("pattern", "crop", "background"),
)
"""Keys of the data group that do not apply to the embedded voices."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A whole data set in memory."""

    kind: Kind
    classes: tuple[str, ...]  # sorted; a label is an index into them
    items: tuple[Item, ...]  # sorted by path
    splits: tuple[Split, ...]  # of each item
    digests: tuple[str, ...]  # sha256 of each item's file, hexadecimal
    arrays: tuple[Shaped[np.ndarray, "_ ..."], ...]  # decoded items; see `decoder.Decoded`
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)  # other files, by kind
    skipped: tuple[Bad, ...] = ()  # unusable files
    warnings: tuple[str, ...] = ()  # one line each
    notes: tuple[str, ...] = ()  # how the data were understood, one line each
    split_rule: str = ""  # how the splits were decided
    unscored: tuple[str, ...] = ()  # trained on, but not scored: the background and small classes

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
        text = "\n".join(f"{i.name}\0{i.label}\0{i.group}\0{s}\0{d}" for i, s, d in rows)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def resolve_set(config: Config, recorded: Mapping[str, Any]) -> Config:
    """Returns `config` with the version and folder of a local TFDS set filled in, if it names one.

    A set that must be downloaded keeps its name; see `download_set`.

    Args:
      config: the settings.
      recorded: flat settings of the run to resume, whose version is kept; empty for a new run.

    Raises:
      UserError: there is no such set, folder or file.
    """
    path, tfds_dir = config.data.path, config.data.tfds_dir
    if not catalog.is_name(path):
        if path:
            check_exists(path)
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
    items: Sequence[Item],
    digests: Sequence[str],
    arrays: Sequence[Shaped[np.ndarray, "_ ..."]],
    warnings: tuple[str, ...] = (),
    **attributes: Any,
) -> Dataset:
    """Splits the items and adds warnings about them; `attributes` are the set's other ones."""
    # Groups that are held out decide the splits, whatever the sizes of the classes.
    small = {} if config.data.holdout else small_classes(items, digests)
    unit = "file" if all(item.start is None for item in items) else "segment"
    words = describe_small(small, unit)
    if small.keys() == {item.label for item in items}:
        raise UserError(
            "no validation split is possible: each class has items of one group only (same "
            f"data.group, same recording or identical files): {words}; add recordings of other "
            "groups, or name a folder with more recordings in data.path"
        )
    skipped = _decide_small(small, words, config.data)
    kept = [i for i, item in enumerate(items) if item.label not in skipped]
    items, digests = tuple(items[i] for i in kept), tuple(digests[i] for i in kept)
    if len({item.label for item in items}) < 2:
        raise UserError(f"after skipping small classes, fewer than two are left: {words}")
    splits, rule, unscored = split_items(items, digests, config.data, config.train.seed)
    unscored = tuple(sorted({*unscored, config.data.background} - {""}))
    if unscored and not any(
        split == "val" and item.label not in unscored
        for item, split in zip(items, splits, strict=True)
    ):
        raise UserError(
            "there are no validation items to score: all of them are of the background or of "
            "classes that are not scored"
        )
    if small:
        how = "skipped" if skipped else "trained on, but not scored"
        warnings = (*warnings, f"classes too small to split, {how}: {words}")
    return Dataset(
        classes=tuple(sorted({item.label for item in items})),
        items=items,
        splits=tuple(splits),
        digests=digests,
        arrays=tuple(arrays[i] for i in kept),
        warnings=(
            *warnings,
            *unused_split_folders(items),
            *([] if small else classes_without_val(items, splits)),
            *suspicious_classes(items),
            *conflicting_duplicates(items, digests),
            *leaks(items, digests, splits),
        ),
        split_rule=rule,
        unscored=unscored,
        **attributes,
    )


_GROUPS = " of other groups (a group: the same data.group, the same recording or identical files)"


def _decide_small(small: Collection[str], words: str, data: DataConfig) -> set[str]:
    """Returns the classes to skip; raises `UserError` with `words` if small ones are not wanted."""
    if small and data.small_classes == "stop":
        raise UserError(
            f"classes too small for both train and val: {words}; add files"
            f"{_GROUPS if ' in ' in words else ''}, or set data.small_classes to 'keep' (trained "
            "on, not scored) or 'skip'"
        )
    return set(small) if data.small_classes == "skip" else set()


def _load_voices(config: Config, cache: Path) -> Dataset:
    if config.mel.sample_rate != synthetic.SAMPLE_RATE:
        raise UserError(
            f"mel.sample_rate must be {synthetic.SAMPLE_RATE} for the embedded voices "
            f"(data.path is empty), not {config.mel.sample_rate}"
        )
    default = DataConfig(group=config.data.group and "group")
    for key in FILE_KEYS:
        if getattr(config.data, key) != getattr(default, key):
            raise UserError(
                f"data.{key} is for files and sets, but data.path is empty, which selects the "
                "embedded voices"
            )
    voices = synthetic.load(cache)
    items = tuple(map(Item, voices.names, voices.labels))
    return _make_dataset(config, items, voices.digests, voices.clips, kind="audio")


def _load_manifest(config: Config, cache: Path) -> Dataset:
    data = config.data
    manifest = read_manifest(data)
    if manifest.kind == "image" and data.image_size and data.window:
        raise UserError(
            "data.window does not apply to resized images, which are used whole; set "
            "data.image_size=0 or data.window=0"
        )
    if manifest.kind == "audio" and data.crop:
        raise UserError(
            f"data.crop is for images, but data.path: {manifest.source!r} has recordings"
        )
    results = _read_cached(config, manifest, cache)
    _check_segments(manifest.items, results)
    bad = (*manifest.bad, *(result for result in results if isinstance(result, Bad)))
    _check_crop(data, bad)
    if data.on_bad_file == "stop":
        check_none_bad(manifest, bad, "data.on_bad_file=skip")
    good = [(i, r) for i, r in zip(manifest.items, results, strict=True) if not isinstance(r, Bad)]
    items = [item for item, _ in good]
    check_enough_left(manifest, items, bad)
    rate = config.mel.sample_rate
    arrays = [content.value.array for _, content in good]
    if manifest.kind == "image":
        if len({array.shape[2] for array in arrays}) > 1:  # gray and RGB images
            arrays = [decoder.with_channels(array, 3) for array in arrays]
        _check_heights(items, arrays)
    digests = [content.digest for _, content in good]
    notes, warnings = list(manifest.notes), list(manifest.warnings)
    check_background(items, data.background)
    warnings += _borders(data, manifest, items, arrays)
    if manifest.kind == "audio":
        facts = {item.path: content.value.facts for item, content in good}
        notes += recordings.notes(facts, rate)
        warnings += recordings.warnings(facts)
        if data.background:
            items, digests, arrays, cut = cut_background(items, digests, arrays, data, rate)
            notes += cut
        items, digests, arrays = _without_silence(data, items, digests, arrays, warnings)
        check_enough_left(manifest, items, bad)
    attributes = {"left_out": manifest.left_out, "skipped": bad, "notes": tuple(notes)}
    try:
        return _make_dataset(
            config, items, digests, arrays, tuple(warnings), kind=manifest.kind, **attributes
        )
    except UserError as error:
        notes = (f"note: {line}" for line in notes)
        understood = (f"read {describe_items(items, manifest.kind)}", *notes)
        raise UserError(str(error), (*understood, *error.details)) from error


def _without_silence(
    data: DataConfig,
    items: Sequence[Item],
    digests: Sequence[str],
    arrays: Sequence[np.ndarray],
    warnings: list[str],
) -> tuple[list[Item], list[str], list[np.ndarray]]:
    """Returns what is not silent, or all with `data.silent='keep'`; adds a line to `warnings`."""
    silent = [is_silent(array) for array in arrays]
    names = [item.name for item, is_so in zip(items, silent, strict=True) if is_so]
    if names:
        what = "skipped" if data.silent == "skip" else "kept"
        warnings.append(f"{count(len(names), 'silent recording')} {what}: {listed(names)}")
    if data.silent == "keep":
        silent = [False] * len(items)
    kept = [i for i, is_so in enumerate(silent) if not is_so]
    return [items[i] for i in kept], [digests[i] for i in kept], [arrays[i] for i in kept]


def _read_cached(config: Config, manifest: Manifest, cache: Path) -> list[Content | Bad]:
    """Returns the decoded content of each item, from the cache if its file has not changed."""
    data, rate = config.data, config.mel.sample_rate
    name = f"{data.tfds_dir} {data.path}"
    if not catalog.is_name(data.path):
        name = os.path.abspath(os.path.expanduser(data.path))
    settings = f"{manifest.kind} {data.image_size} {crop_of(data.crop)} {rate} {versions(DECODING)}"
    file = decoded_cache.cache_file(cache, name, settings)
    # Stamps are taken before reading, so that a file changed meanwhile is read again next time.
    stamps = {item.path: manifest.stamp(item) for item in manifest.items}
    path_of = {item.name: item.path for item in manifest.items}
    kept = {
        name: each
        for name, each in decoded_cache.load(file).items()
        if each.stamp and each.stamp == stamps.get(path_of.get(name, ""))
    }
    results = {
        name: Content(each.digest, Decoded(each.array, each.facts)) for name, each in kept.items()
    }
    results |= _read_files(config, manifest, [i for i in manifest.items if i.name not in kept])
    new = {
        name: CachedItem(stamps[path_of[name]], result.digest, *result.value)
        for name, result in results.items()
        if isinstance(result, Content)
        and isinstance(result.value, Decoded)
        and name not in kept
        and stamps[path_of[name]]
    }
    if new:
        decoded_cache.save(file, kept | new)
    return [results[item.name] for item in manifest.items]


def _read_files(
    config: Config, manifest: Manifest, items: Sequence[Item]
) -> dict[str, Content | Bad]:
    """Returns the decoded content of each item by its name; a file is decoded once."""
    data, rate = config.data, config.mel.sample_rate
    whole = decoder.make_decoder(manifest.kind, data.image_size, rate, crop_of(data.crop))
    of_file: dict[str, list[Item]] = {}
    for item in items:
        of_file.setdefault(item.path, []).append(item)

    def decode(item: Item, opened: OpenFile) -> list[Decoded | OutsideError]:
        if item.start is None:
            return [whole(opened)]
        return read_segments(of_file[item.path], opened, rate)

    results: dict[str, Content | Bad] = {}
    files = [segments[0] for segments in of_file.values()]
    read = read_all(manifest, files, decode, size_of=_decoded_bytes)
    for first, result in zip(files, read, strict=True):
        for place, item in enumerate(of_file[first.path]):
            if isinstance(result, Content):
                results[item.name] = Content(result.digest, result.value[place])
            else:
                results[item.name] = result
    return results


def _decoded_bytes(parts: Sequence[Decoded | OutsideError]) -> int:
    return sum(part.array.nbytes for part in parts if isinstance(part, Decoded))


def _check_segments(items: Sequence[Item], results: Sequence[Content | Bad]) -> None:
    """Raises `UserError` that lists all segments outside of their recordings."""
    wrong = [
        f"{item.name}: {result.value}"
        for item, result in zip(items, results, strict=True)
        if isinstance(result, Content) and isinstance(result.value, OutsideError)
    ]
    if wrong:
        raise UserError(
            f"{count(len(wrong), 'segment')} outside of the recording (listed above); correct the "
            "columns data.start_column and data.end_column, which are in seconds",
            wrong,
        )


def _borders(
    data: DataConfig, manifest: Manifest, items: Sequence[Item], arrays: Sequence[np.ndarray]
) -> list[str]:
    """Returns a warning if all images have the same borders."""
    if manifest.kind == "audio":
        return []
    crop = crop_of(data.crop)
    decode = decoder.make_decoder("image", 0, 0, crop=crop)

    def originals(chosen: list[int]) -> list[np.ndarray]:
        chosen_items = [items[i] for i in chosen]
        results = read_all(manifest, chosen_items, lambda _, opened: decode(opened))
        values = [result.value.array for result in results if not isinstance(result, Bad)]
        return [decoder.with_channels(value, arrays[0].shape[2]) for value in values]

    return border_warnings(arrays, crop, originals if data.image_size else None)


def _check_crop(data: DataConfig, bad: Sequence[Bad]) -> None:
    """Raises `UserError` if data.crop leaves nothing of an image and none are skipped."""
    empty = [each for each in bad if each.reason.startswith("data.crop")]
    if empty and data.on_bad_file == "stop":
        raise UserError(
            f"{empty[0].reason} in {count(len(empty), 'image')}, e.g. {empty[0].path}; cut less"
        )


def _check_heights(items: Sequence[Item], arrays: Sequence[np.ndarray]) -> None:
    first = {}
    for item, array in zip(items, arrays, strict=True):
        first.setdefault(array.shape[1], item.path)
    if len(first) > 1:
        (one, a), (other, b), *_ = first.items()
        raise UserError(
            f"images differ in height ({a}: {one} pixels, {b}: {other}); "
            "set data.image_size to resize them all"
        )
