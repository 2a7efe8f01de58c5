"""Reads a TFDS set as a manifest, and the content of each example as the bytes of a file."""

import functools
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Shaped

from meljax.data.manifest import (
    Bad,
    Item,
    Manifest,
    check_classes,
    check_groups,
    file_stamp,
)
from meljax.data.split_names import SPLIT_OF_NAME
from meljax.data.tfds import build_info, catalog
from meljax.data.tfds.build_info import BuildInfo, Signature
from meljax.data.tfds.fields import Fields, as_text, choose_fields, holds_samples
from meljax.util.errors import BadFileError, UserError, first_line
from meljax.util.progress import track

ASSUMED_RATE = 16_000
"""Sample rate in Hz of an Audio feature without one, as in TFDS."""
MAX_LISTED = 10
"""Maximum number of damaged examples that are listed for a split."""
Table = Any
"""The examples of a split: a sequence of {feature: value}; indexing a damaged one raises."""


class _Set(NamedTuple):
    """An open set."""

    path: str  # its name, for messages
    builder: Any
    fields: Fields
    recorded: BuildInfo | None  # `None` if meljax did not build it

    @property
    def features(self) -> Any:
        """The set's `tfds.features.FeaturesDict`."""
        return self.builder.info.features


class _Row(NamedTuple):
    """An example without its content."""

    split: str  # TFDS's name
    index: int
    path: str
    label: str  # '' if the class is unknown
    group: str
    signature: Signature | None  # `None` if meljax did not build the set


def scan_set(path: str, tfds_dir: str, label: str, group: str, training: bool) -> Manifest:
    """Returns the manifest of a TFDS set; see `sources.read_manifest`."""
    builder = catalog.open_set(path, tfds_dir)
    recorded = build_info.read_build_info(path, builder.info)
    opened = _Set(path, builder, choose_fields(path, builder.info, label, group), recorded)
    splits = _splits(path, builder.info.splits, training)
    with catalog.tfds_errors(path):
        tables = {split: _table(opened, split) for split in splits}
    rows, bad = _read_rows(opened, tables)
    if recorded and not bad:
        found = build_info.fingerprint(row.signature for row in rows if row.signature)
        if found != recorded.fingerprint:
            raise build_info.damaged_set(path)
    row_of = {_item(row, splits): row for row in rows if row.label}
    if not row_of and not bad:
        raise UserError(f"data.label: {label!r} of {path} is empty in all examples")
    if training:
        check_groups(path, {(item.label, item.group) for item in row_of}, group)
    if training and not bad:
        check_classes(path, row_of)
    shards = [file for split in splits for file in builder.info.splits[split].filepaths]
    stamps = [file_stamp(str(file)) for file in shards]
    return Manifest(
        source=path,
        root="",
        kind=opened.fields.kind,
        items=tuple(sorted(row_of, key=lambda item: item.path)),
        left_out={},
        bad=tuple(bad),
        open=lambda item: io.BytesIO(_content(opened, tables[row_of[item].split], row_of[item])),
        stamp=lambda item: " ".join(stamps) if all(stamps) else "",
        warnings=tuple(_warnings(opened, rows, splits)),
    )


def _splits(path: str, all_splits: Mapping[str, Any], training: bool) -> dict[str, str]:
    """Returns our split for each TFDS split that is used; '' if it is not decided yet."""
    filled = [name for name, found in all_splits.items() if found.num_examples]
    splits = {name: SPLIT_OF_NAME[name] for name in filled if name in SPLIT_OF_NAME}
    if len(filled) == 1 and (training or not splits):
        splits = {filled[0]: "train"}
    if not training:
        return splits
    if "train" not in splits.values():
        found = ", ".join(map(repr, filled)) or "none"
        raise UserError(f"data.path: {path} has no split 'train'; its splits: {found}")
    if "val" not in splits.values():
        return {name: "" if split == "train" else split for name, split in splits.items()}
    return splits


def _table(opened: _Set, split: str) -> Table:
    """Returns the examples of a split, without decoding images and recordings."""
    library, builder = catalog.library(), opened.builder
    info, features = builder.info, catalog.library().features
    missing = [str(file) for file in info.splits[split].filepaths if not file.exists()]
    if missing:
        raise UserError(
            f"data.path: {opened.path} lacks {len(missing)} of its files, e.g. {missing[0]!r}; "
            "restore them, or remove the folder and build or download the set again"
        )
    size = sum(os.path.getsize(file) for file in info.splits[split].filepaths)
    if info.splits[split].num_examples > size:  # each takes a byte at least
        raise build_info.damaged_set(opened.path)
    decoders = {
        key: library.decode.SkipDecoding()
        for key, feature in opened.features.items()
        if isinstance(feature, features.Image | features.Audio) and not holds_samples(feature)
    }
    if info.available_file_formats() & set(library.core.FileFormat.with_random_access()):
        return builder.as_data_source(split, decoders=decoders)
    # Only TensorFlow reads the other formats, without random access: load everything into memory.
    catalog.hide_accelerators()
    dataset = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
    return list(library.as_numpy(dataset))


def _read_rows(opened: _Set, tables: Mapping[str, Table]) -> tuple[list[_Row], list[Bad]]:
    rows, damaged = [], defaultdict(list)
    places = [(split, i) for split, table in tables.items() for i in range(len(table))]
    for split, i in track(places, len(places), "reading labels"):
        try:
            rows.append(_row(opened, split, i, _example(tables[split], i)))
        except BadFileError as error:
            damaged[split].append(Bad(f"{split}, example {i}", str(error)))
    listed = []
    for bad in damaged.values():
        listed += bad[:MAX_LISTED]
        if (more := len(bad) - MAX_LISTED) > 0:  # all examples of a truncated file are damaged
            listed.append(Bad(f"and {more:,} more examples", "damaged too"))
    return rows, listed


def _example(table: Table, index: int) -> Mapping[str, Any]:
    try:
        return table[index]
    except Exception as error:  # riegeli and protobuf raise many types for damaged data
        raise BadFileError(f"damaged ({first_line(error)})") from error


def _row(opened: _Set, split: str, index: int, example: Mapping[str, Any]) -> _Row:
    text = functools.partial(_text, opened, example)
    fields = opened.fields
    signature = Signature(*map(text, build_info.FEATURES), split) if opened.recorded else None
    return _Row(split, index, text(fields.path), text(fields.label), text(fields.group), signature)


def _text(opened: _Set, example: Mapping[str, Any], key: str) -> str:
    """Returns a feature as text; '' if `key` is empty because the set has no such feature."""
    return as_text(opened.features[key], _value(example, key)) if key else ""


def _value(example: Mapping[str, Any], key: str) -> Any:
    if example.get(key) is None:
        raise BadFileError(f"damaged (it lacks {key!r})")
    return example[key]


def _item(row: _Row, splits: Mapping[str, str]) -> Item:
    """Returns the item of a row; the index makes the paths of other programs' sets unique."""
    path = row.path if row.signature else f"{row.split}/{row.index:06} {row.path}".rstrip()
    return Item(path, row.label, row.group, splits[row.split])


def _content(opened: _Set, table: Table, row: _Row) -> bytes:
    """Returns the image or recording of an example as the bytes of a file."""
    value = _value(_example(table, row.index), opened.fields.content)
    if isinstance(value, np.ndarray):
        rate = opened.features[opened.fields.content].sample_rate
        return _as_au_file(value, rate or ASSUMED_RATE)
    if row.signature and hashlib.sha256(value).hexdigest() != row.signature.sha256:
        raise BadFileError("damaged (its checksum differs)")
    return value


def _as_au_file(samples: Shaped[np.ndarray, " samples *channels"], rate: int) -> bytes:
    """Returns samples as an AU file, whose bytes do not depend on the time of writing.

    Integers are stored with 16 bits if they fit, so that they are read back unchanged.
    """
    if np.issubdtype(samples.dtype, np.floating):
        subtype, dtype = "FLOAT", np.float32
    elif not samples.size or max(-int(samples.min()) - 1, int(samples.max())) < 2**15:
        subtype, dtype = "PCM_16", np.int16
    else:
        subtype, dtype = "PCM_32", np.int32
    file = io.BytesIO()
    soundfile.write(file, samples.astype(dtype), rate, subtype, format="AU")
    return file.getvalue()


def _warnings(opened: _Set, rows: Iterable[_Row], splits: Mapping[str, str]) -> Sequence[str]:
    """Returns one line for each part of the set that is skipped and each assumption about it."""
    lines, all_splits = [], opened.builder.info.splits
    filled = [name for name, split in all_splits.items() if split.num_examples]
    if unused := [name for name in filled if name not in splits]:
        lines.append(
            f"splits of {opened.path} other than train, validation and test are not used: "
            f"{', '.join(unused)}"
        )
    content = opened.features[opened.fields.content]
    if holds_samples(content) and not content.sample_rate:
        lines.append(f"{opened.path} gives no sample rate; assuming {ASSUMED_RATE} Hz")
    unknown = Counter(row.split for row in rows if not row.label)
    lines += [
        f"{n:,} examples of split {split} have no class and are skipped"
        for split, n in unknown.items()
    ]
    return lines
