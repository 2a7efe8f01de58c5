"""Builds a TFDS set from a folder or table: checks it, decodes every file, writes the set."""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from meljax.config import DataConfig
from meljax.data.decode import decoder
from meljax.data.manifest import (
    Bad,
    Item,
    Manifest,
    check_classes,
    check_enough_left,
    check_none_bad,
    noun,
)
from meljax.data.read_files import Content, read_all
from meljax.data.sources import read_manifest
from meljax.data.split import conflicting_duplicates
from meljax.data.tfds import build, build_info, catalog
from meljax.data.tfds.build_info import BuildInfo, Signature
from meljax.util.errors import UserError
from meljax.util.progress import say, warn
from meljax.util.version import __version__

TFDS_SPLITS = {"": "train", "train": "train", "val": "validation", "test": "test"}
"""TFDS's name of each split; items whose split is not decided are in 'train'."""
ANY_RATE = 16_000
"""Sample rate in Hz for the check that recordings can be decoded, which does not depend on it."""


def build_tfds(data: DataConfig, name: str, version: str, description: str = "") -> None:
    """Builds a set unless it exists and nothing has changed.

    Args:
      data: source and class, group and folder of the set.
      name: name of the set; letters, digits and _.
      version: such as '1.0.0'.
      description: stored in the set; '': the number of items and classes.

    Raises:
      UserError: an argument or the source is not valid, or the set cannot be written.
    """
    full_name, root = catalog.Name(name, "", version), catalog.root_of(data.tfds_dir)
    _check_arguments(data.path, full_name, description)
    manifest = read_manifest(data)
    _check_items(manifest)
    build.check_place(full_name, root, Path(data.path))
    hashed = read_all(manifest, manifest.items, lambda item, opened: None)
    identity = _identity(manifest, hashed, description, data.on_bad_file)
    if build.is_current(full_name, root, identity):
        say(f"unchanged: {build.summary(full_name, root)}")
        return
    good = _usable(manifest, data.on_bad_file)
    classes = sorted({item.label for item in good})
    info = BuildInfo(
        format=build_info.FORMAT,
        version=__version__,
        classes=classes,
        fingerprint=build_info.fingerprint(good.values()),
        source=identity,
    )
    if catalog.folder_of(root, full_name).exists():
        say(f"replacing {build.summary(full_name, root)}")
    default = f"{len(good)} {noun(manifest.kind, len(good))} of {len(classes)} classes."
    build.write_set(full_name, root, manifest, good, description or default, info)
    say(
        f"built {build.summary(full_name, root)}; ignored {sum(manifest.left_out.values())} other "
        "files or folders"
    )
    where = f" --data.tfds_dir={shlex.quote(data.tfds_dir)}" if data.tfds_dir else ""
    say(f"to train on it: meljax train {full_name} --config cnn{where}")


def _check_arguments(source: str, name: catalog.Name, description: str) -> None:
    if catalog.is_name(source):
        raise UserError(f"data.path: {source} is a TFDS set already; name a folder or a table")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name.name):
        raise UserError(
            f"--name must be letters (a-z), digits and _, starting with a letter, not {name.name!r}"
        )
    if not re.fullmatch(catalog.VERSION, name.version):
        raise UserError(f"--version must be three numbers like 1.0.0, not {name.version!r}")
    if name.name in catalog.known():
        raise UserError(f"--name {name.name}: TFDS has a set of that name; choose another")
    if not _is_unicode(description):
        raise UserError(f"--description must be Unicode text, not {description!r}")


def _check_items(manifest: Manifest) -> None:
    """Raises `UserError` for segments, and for a class that TFDS cannot store as a line of text."""
    if any(item.start is not None for item in manifest.items):
        raise UserError(
            f"{manifest.source} lists segments, but an example of a TFDS set is a whole file; cut "
            "the recordings first"
        )
    for label in sorted({item.label for item in manifest.items}):
        if [label] != label.strip().splitlines() or "\0" in label or not _is_unicode(label):
            raise UserError(f"the class {label!r} cannot be written to a TFDS set; rename it")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _identity(
    manifest: Manifest, hashed: Sequence[Content | Bad], description: str, on_bad_file: str
) -> str:
    """Returns a sha256 of everything that the set is built from."""
    items = [
        [*dataclasses.astuple(item), str(result)]
        for item, result in zip(manifest.items, hashed, strict=True)
    ]
    bad = [str(each) for each in manifest.bad]
    text = json.dumps([build_info.FORMAT, items, bad, description, on_bad_file])
    return hashlib.sha256(text.encode()).hexdigest()


def _usable(manifest: Manifest, on_bad_file: str) -> dict[Item, Signature]:
    """Returns the signatures of decodable items; raises the same `UserError`s as training."""
    decode = decoder.make_decoder(manifest.kind, 0, ANY_RATE)
    results = read_all(
        manifest, manifest.items, lambda _, opened: bool(decode(opened).array.size), "checking"
    )
    bad = [*manifest.bad, *(result for result in results if isinstance(result, Bad))]
    if on_bad_file == "stop":
        check_none_bad(manifest, bad, "data.on_bad_file=skip")
    for each in bad:
        warn(f"{each}; skipped")
    good = {
        item: Signature(item.path, item.label, item.group, result.digest, TFDS_SPLITS[item.split])
        for item, result in zip(manifest.items, results, strict=True)
        if not isinstance(result, Bad)
    }
    check_enough_left(manifest, good, bad)
    check_classes(manifest.source, good)
    for line in conflicting_duplicates(list(good), [each.sha256 for each in good.values()]):
        warn(line)
    return good
