"""A TFDS set → the same table as a folder's, and each example's bytes as if it were a file."""

import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Shaped

from meljax import progress
from meljax.data import files, tfds
from meljax.data.files import Bad, Item, Listing
from meljax.errors import BadFileError, UserError

PATHS = ("path", "filename", "file_name")
"""Last parts of the names of features that may say where an example came from."""
OURS = "meljax"
"""Key of the metadata of a set that meljax wrote; holds the `fingerprint` of its examples."""
FORMAT = 1
"""Of what meljax writes: another number, and sets are made anew."""
ASSUMED_RATE = 16_000  # Hz, as TFDS itself assumes where an Audio feature gives none
MOST_LISTED = 10
"""Damaged examples of a split that are listed one by one."""
SIGNED = ("path", "label", "group", "sha256")
"""Features that a `Signature` is read from."""
Table = Any
"""A split: a sequence of examples, {feature: value} each. A damaged one raises when it is read."""


class Signature(NamedTuple):
    """What tells an example of a set that meljax wrote from all others."""

    path: str
    label: str
    group: str
    sha256: str  # of the content
    split: str  # TFDS's word for it


def facts_of(info: Any) -> dict[str, Any]:
    """Returns what meljax recorded in a set that it wrote; nothing of others."""
    metadata = info.metadata
    facts = dict(metadata.items()).get(OURS, {}) if metadata is not None else {}
    return facts if isinstance(facts, dict) else {}


def fingerprint(examples: Iterable[Signature]) -> str:
    """Returns a sha256 over all examples, in whatever order they come."""
    text = "\n".join("\0".join(example) for example in sorted(examples))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def scan(path: str, tfds_dir: str, label: str, group: str, training: bool) -> Listing:
    """Lists the examples of a TFDS set; as `files.scan` for folders.

    Args:
      path: 'tfds:NAME[/CONFIG][:VERSION]'.
      tfds_dir: where sets lie; '': where TFDS keeps them.
      label: the feature with the class: a ClassLabel, a text or a whole number.
      group: the feature with what must not be on two sides; the default may be absent, '' is none.
      training: whether there must be enough to train on.

    Raises:
      UserError: the set cannot be had or used; the message says why.
    """
    builder = tfds.open_set(path, tfds_dir)
    facts = facts_of(builder.info)
    _check_facts(path, builder.info, facts)
    fields = _choose(path, builder.info, label, group)
    opened = _Opened(path, builder, fields, facts.get("fingerprint", ""))
    sides = _sides(path, builder.info.splits, training)
    with tfds.errors_for_people(path):
        tables = {split: _examples(path, builder, split, opened.decoders) for split in sides}
    rows, bad = _read_rows(opened, tables)
    if not bad:
        _check_whole(opened, rows)
    used = [row for row in rows if row.label]
    if not used and not bad:
        raise UserError(f"data.label: {label!r} of {path} says nothing in any example")
    items = _items(used, sides)
    files.check_groups(path, items, group)
    place = {item.path: row for item, row in zip(items, used, strict=True)}

    def read(item: Item) -> bytes:
        row = place[item.path]
        return _content(opened, tables[row.split], row)

    shards = [file for split in sides for file in builder.info.splits[split].filepaths]
    stamps = [files.stamp(str(file)) for file in shards]
    listing = Listing(
        root="",
        kind=opened.fields.kind,
        items=tuple(sorted(items, key=lambda item: item.path)),
        ignored=0,
        bad=tuple(bad),
        read=read,
        stamp=lambda item: " ".join(stamps) if all(stamps) else "",
        warnings=tuple(_warnings(opened, rows, sides)),
    )
    if training and not bad:
        files.check_classes(path, listing.items)
    return listing


class _Fields(NamedTuple):
    """Which features are read as what; '' for what there is not."""

    content: str
    kind: Literal["image", "sound"]
    label: str
    group: str
    path: str


class _Opened(NamedTuple):
    """A set and how it is read."""

    path: str  # its name, as given
    builder: Any
    fields: _Fields
    fingerprint: str  # of a set that meljax wrote

    @property
    def features(self) -> Any:
        """Its features: a `tfds.features.FeaturesDict`."""
        return self.builder.info.features

    @property
    def decoders(self) -> dict[str, Any]:
        """What TFDS must leave as it was stored: pictures and recordings."""
        library = tfds.library()
        image, audio = library.features.Image, library.features.Audio
        return {
            key: library.decode.SkipDecoding()
            for key, feature in self.features.items()
            if isinstance(feature, image) or (isinstance(feature, audio) and not _decoded(feature))
        }


def _decoded(feature: Any) -> bool:
    """Returns whether an Audio feature holds samples, not the bytes of a file."""
    return bool(feature.get_serialized_info().shape)


class _Row(NamedTuple):
    """An example, without its content."""

    split: str
    index: int
    path: str
    label: str  # '' where the class is not known
    group: str
    signature: Signature | None  # of a set that meljax wrote


# Choosing features and splits


def _choose(path: str, info: Any, label: str, group: str) -> _Fields:
    content, kind = _choose_content(path, info)
    if label == group:
        raise UserError(
            f"data.group and data.label both name feature {label!r}: a class could be on one side"
            " only; name another feature or set data.group=''"
        )
    if not label:
        raise UserError(f"data.label is empty; name the feature of {path} that holds the class")
    scalars = sorted(
        key for key in info.features if key != content and _is_scalar(info.features[key])
    )
    if group == "group" and group not in info.features:
        group = ""
    for key, name in (("data.label", label), ("data.group", group)):
        if name and name not in scalars:
            problem = "can be no class or group" if name in info.features else "is not there"
            raise UserError(
                f"{key}: the feature {name!r} of {path} {problem}{files.nearest(name, scalars)}; "
                f"it could be {', '.join(map(repr, scalars)) or 'none of its features'}"
            )
    text = tfds.library().features.Text
    paths = [
        key
        for name in PATHS
        for key in info.features
        if key.rpartition("/")[2] == name and isinstance(info.features[key], text)
    ]
    return _Fields(content, kind, label, group, paths[0] if paths else "")


def _choose_content(path: str, info: Any) -> tuple[str, Literal["image", "sound"]]:
    """Returns the feature that holds pictures or recordings, and which."""
    if not isinstance(info.features, tfds.library().features.FeaturesDict):
        raise UserError(f"data.path: {path} has no features with names")
    kinds = {key: kind for key in info.features if (kind := _kind(key, info.features[key]))}
    first = info.supervised_keys[0] if info.supervised_keys else ""
    first = first if isinstance(first, str) else ""
    named = [key for key in kinds if key in ("image", "audio")]
    for candidates in ([first] if first in kinds else [], named, list(kinds)):
        if len(candidates) == 1:
            return candidates[0], kinds[candidates[0]]
    held = ", ".join(map(repr, sorted(kinds or info.features)))
    raise UserError(
        f"data.path: {path} has {'more than one' if kinds else 'no'} feature with pictures or "
        f"recordings: {held}; it must have one"
    )


def _kind(key: str, feature: Any) -> Literal["image", "sound"] | None:
    features = tfds.library().features
    if isinstance(feature, features.Image) and not isinstance(feature, features.LabeledImage):
        return "image" if feature.np_dtype in (np.uint8, np.uint16) else None
    if isinstance(feature, features.Audio):
        return "sound"
    # Files as they are, which meljax writes: an Audio feature cannot be made without TensorFlow.
    return "sound" if key == "audio" and isinstance(feature, features.Text) else None


def _is_scalar(feature: Any) -> bool:
    """Returns whether a feature is a class, a text or a whole number."""
    if isinstance(feature, tfds.library().features.Text):
        return True
    # `dtype` would be TensorFlow's.
    return feature.shape == () and np.dtype(feature.np_dtype).kind in "iubUSO"


def _sides(path: str, splits: Mapping[str, Any], training: bool) -> dict[str, str]:
    """Returns the side of each split that is used; '' where the side is to be decided."""
    filled = [name for name, split in splits.items() if split.num_examples]
    sides = {name: files.SPLITS[name] for name in filled if name in files.SPLITS}
    if len(filled) == 1 and (training or not sides):
        sides = {filled[0]: "train"}
    if not training:
        return sides
    if "train" not in sides.values():
        raise UserError(
            f"data.path: {path} has no split 'train', but {', '.join(map(repr, filled)) or 'none'}"
        )
    if "val" not in sides.values():
        return {name: "" if side == "train" else side for name, side in sides.items()}
    return sides


# Reading


def _examples(path: str, builder: Any, split: str, decoders: dict[str, Any]) -> Table:
    """Returns the examples of a split, by their number."""
    info = builder.info
    missing = [str(file) for file in info.splits[split].filepaths if not file.exists()]
    if missing:
        raise UserError(
            f"data.path: {path} lacks {len(missing)} of its files, such as {missing[0]!r}; bring "
            "them back, or remove the folder and make or fetch the set anew"
        )
    library = tfds.library()
    formats = library.core.FileFormat.with_random_access()
    if info.available_file_formats() & set(formats):
        return builder.as_data_source(split, decoders=decoders)
    # TensorFlow alone reads the other formats, in their order: they are held in memory.
    tfds.hide_accelerators()
    dataset = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
    return list(library.as_numpy(dataset))


def _read_rows(opened: _Opened, tables: Mapping[str, Table]) -> tuple[list[_Row], list[Bad]]:
    rows, damaged = [], defaultdict(list)
    places = [(split, i) for split, table in tables.items() for i in range(len(table))]
    for split, i in progress.track(places, len(places), "reading labels"):
        try:
            rows.append(_row(opened, split, i, _example(tables[split], i)))
        except BadFileError as error:
            damaged[split].append(Bad(f"{split}, example {i}", str(error)))
    return rows, [line for bad in damaged.values() for line in _shortened(bad)]


def _shortened(bad: list[Bad]) -> list[Bad]:
    """Returns as many lines as a person reads: a file that was cut off damages all its examples."""
    more = len(bad) - MOST_LISTED
    if more <= 0:
        return bad
    return [*bad[:MOST_LISTED], Bad(f"and {more:,} more examples", "damaged too")]


def _example(table: Table, index: int) -> Mapping[str, Any]:
    try:
        return table[index]
    except Exception as error:  # riegeli and protobuf have many words for damage
        raise BadFileError(f"damaged ({tfds.first_line(error)})") from error


def _row(opened: _Opened, split: str, index: int, example: Mapping[str, Any]) -> _Row:
    def word(key: str) -> str:
        return _word(opened.features[key], _value(example, key)) if key else ""

    fields, signature = opened.fields, None
    if opened.fingerprint:
        signature = Signature(*map(word, SIGNED), split)
    return _Row(split, index, word(fields.path), word(fields.label), word(fields.group), signature)


def _value(example: Mapping[str, Any], key: str) -> Any:
    if example.get(key) is None:
        raise BadFileError(f"damaged (it lacks {key!r})")
    return example[key]


def _word(feature: Any, value: Any) -> str:
    """Returns a scalar as text; '' for a class that is not known."""
    if isinstance(feature, tfds.library().features.ClassLabel):
        if value >= len(feature.names):
            raise BadFileError(f"damaged (there is no class {value})")
        return feature.int2str(int(value)) if value >= 0 else ""
    return os.fsdecode(value) if isinstance(value, bytes | str) else str(value)


def _items(rows: Sequence[_Row], sides: Mapping[str, str]) -> list[Item]:
    """Returns the table. In sets of others a path need not be unique: its number goes before it."""

    def path(row: _Row) -> str:
        return row.path if row.signature else f"{row.split}/{row.index:06} {row.path}".rstrip()

    return [Item(path(row), row.label, row.group, sides[row.split]) for row in rows]


def _check_whole(opened: _Opened, rows: Iterable[_Row]) -> None:
    """Raises `UserError` if a set that meljax wrote is no longer what it wrote."""
    found = fingerprint(row.signature for row in rows if row.signature)
    if opened.fingerprint not in ("", found):
        raise _damaged(opened.path)


def _check_facts(path: str, info: Any, facts: Mapping[str, Any]) -> None:
    """Raises `UserError` if a set that meljax wrote has other features or classes than it wrote.

    Names of classes stand in a file of their own: exchanged, they would be wrong labels.
    """
    if not facts:
        return
    if facts.get("format") != FORMAT:
        raise UserError(f"data.path: {path} was made by another version of meljax; make it anew")
    features = info.features
    if not set(SIGNED) <= set(features) or list(features["label"].names) != facts.get("classes"):
        raise _damaged(path)


def _damaged(path: str) -> UserError:
    return UserError(
        f"data.path: {path} is damaged: its examples, or the names of its classes or features, are "
        "not those it was made with; make or fetch it anew"
    )


def _content(opened: _Opened, table: Table, row: _Row) -> bytes:
    """Returns an example's picture or recording as a file would hold it."""
    value = _value(_example(table, row.index), opened.fields.content)
    if isinstance(value, np.ndarray):
        rate = opened.features[opened.fields.content].sample_rate
        return _as_file(value, rate or ASSUMED_RATE)
    if row.signature and hashlib.sha256(value).hexdigest() != row.signature.sha256:
        raise BadFileError("damaged (its checksum is another)")
    return value


def _as_file(samples: Shaped[np.ndarray, " samples *channels"], rate: int) -> bytes:
    """Returns a decoded recording as an AU file, which holds no time of writing.

    Whole numbers that fit are stored as 16 bits, and so read as they are.
    """
    if np.issubdtype(samples.dtype, np.floating):
        subtype, dtype = "FLOAT", np.float32
    elif not samples.size or max(-samples.min() - 1, samples.max()) < 2**15:
        subtype, dtype = "PCM_16", np.int16
    else:
        subtype, dtype = "PCM_32", np.int32
    file = io.BytesIO()
    soundfile.write(file, samples.astype(dtype), rate, subtype, format="AU")
    return file.getvalue()


def _warnings(opened: _Opened, rows: Sequence[_Row], sides: Mapping[str, str]) -> list[str]:
    """Returns what is left out of the set, one line each."""
    lines = []
    unused = [
        name
        for name, split in opened.builder.info.splits.items()
        if split.num_examples and name not in sides
    ]
    if unused:
        lines.append(
            f"splits of {opened.path} that are neither train, validation nor test are not used: "
            f"{', '.join(unused)}"
        )
    content = opened.features[opened.fields.content]
    audio = isinstance(content, tfds.library().features.Audio)
    if audio and _decoded(content) and not content.sample_rate:
        lines.append(f"{opened.path} gives no sample rate; taken for {ASSUMED_RATE} Hz")
    unknown = Counter(row.split for row in rows if not row.label)
    lines += [
        f"{n:,} examples of split {split} have no class and are left out"
        for split, n in unknown.items()
    ]
    return lines
