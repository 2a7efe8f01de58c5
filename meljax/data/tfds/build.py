"""Writes files as a TFDS set in array_record format, without TensorFlow.

A complete set replaces the old one; an incomplete set is never left in its place.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meljax.data.manifest import Item, Manifest
from meljax.data.tfds import catalog
from meljax.data.tfds.build_info import METADATA_KEY, BuildInfo, Signature, read_build_info
from meljax.data.tfds.examples import scan_set
from meljax.features.frontend import Kind
from meljax.util.errors import BadFileError, UserError, disk_full, first_line
from meljax.util.files import locked_file
from meljax.util.progress import counter
from meljax.util.typed_json import parse_json

CONTENT_FEATURE: dict[Kind, str] = {"image": "image", "audio": "audio"}
"""Name of the feature that holds the image or recording."""


def is_current(name: catalog.Name, root: Path, source: str) -> bool:
    """Returns whether the set exists, is complete and has `source` as its `BuildInfo.source`."""
    if name not in catalog.prepared(root):
        return False
    try:
        recorded = read_build_info(str(name), catalog.open_set(str(name), str(root)).info)
        complete = not scan_set(str(name), str(root), "label", "group", training=False).bad
    except UserError:  # damaged, or of another program
        return False
    return complete and recorded is not None and recorded.source == source


def check_place(name: catalog.Name, root: Path, source: Path) -> None:
    """Raises `UserError` if the set would replace another program's or be inside `source`."""
    for other in catalog.prepared(root):
        if other.name == name.name and other.config:
            raise UserError(f"{root} has {other} of another program; choose another --name")
    folder = catalog.folder_of(root, name)
    try:
        metadata = parse_json((folder / "metadata.json").read_text(encoding="utf-8"))
        is_ours = METADATA_KEY in metadata
    except (OSError, ValueError, TypeError):
        is_ours = False
    if folder.exists() and not is_ours:
        raise UserError(
            f"{folder} exists and was not built by meljax; remove it, or choose another --name or "
            "--version"
        )
    if source.is_dir() and source.resolve() in (root.resolve(), *root.resolve().parents):
        raise UserError(
            f"data.tfds_dir: {root} is inside {source}, whose folders are classes; choose another"
        )


def summary(name: catalog.Name, root: Path) -> str:
    """Returns the folder, the numbers of classes and examples, and the size of a set as text."""
    folder = catalog.folder_of(root, name)
    size = sum(file.stat().st_size for file in folder.iterdir())
    try:
        info = catalog.open_folder(name, folder).info
    except UserError:
        return f"{folder} (damaged), {size / 1e6:,.1f} MB"
    splits = [split for split in ("train", "validation", "test") if split in info.splits]
    counts = ", ".join(f"{info.splits[split].num_examples:,} {split}" for split in splits)
    return f"{folder}: {info.features['label'].num_classes} classes, {counts}, {size / 1e6:,.1f} MB"


def write_set(
    name: catalog.Name,
    root: Path,
    manifest: Manifest,
    signatures: Mapping[Item, Signature],
    description: str,
    info: BuildInfo,
) -> None:
    """Writes the items in `signatures` as a set in `root`; replaces an older one.

    `description` is for people; `info` is recorded in the set's metadata.

    Raises:
      UserError: a file changed or cannot be read, or the set cannot be written.
    """
    library, kind = catalog.library(), manifest.kind
    numbers = itertools.count(1)

    class Set(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version(name.version)

        def _info(self) -> Any:
            return library.core.DatasetInfo(
                builder=self,
                description=description,
                features=_features(kind, info.classes),
                supervised_keys=(CONTENT_FEATURE[kind], "label"),
                metadata=library.core.MetadataDict({METADATA_KEY: dataclasses.asdict(info)}),
            )

        def _split_generators(self, _: Any) -> dict[str, Iterator[Any]]:
            names = sorted({signature.split for signature in signatures.values()})
            return {split: self._generate_examples(split) for split in names}

        def _generate_examples(self, split: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
            for item, signature in signatures.items():
                if signature.split == split:
                    count(next(numbers), len(signatures))
                    yield os.fsencode(item.path), _example(manifest, item, signature)

    Set.name = name.name
    library.disable_progress_bar()
    settings = library.download.DownloadConfig(try_download_gcs=False)
    with (
        _replacing(root, name) as place,
        counter("writing") as count,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            builder = Set(data_dir=place, file_format="array_record")
            builder.download_and_prepare(download_config=settings)
        except RuntimeError as error:  # array_record: the disk is full
            reason = disk_full(error) or first_line(error)
            raise UserError(f"{place} cannot be written: {reason}") from error


@contextlib.contextmanager
def _replacing(root: Path, name: catalog.Name) -> Iterator[Path]:
    """Yields a folder to write the set in; moves the set into place after the block."""
    place = root / f".meljax-{name.name}"
    new, old, target = place / "made", place / "old", catalog.folder_of(root, name)
    lock = place / "lock"
    with locked_file(lock, f"another process is building {name.name} in {root}"):
        _restore(old, target)  # if an earlier process was killed
        shutil.rmtree(new, ignore_errors=True)
        try:
            yield new
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(old)
            catalog.folder_of(new, name).rename(target)
        finally:
            _restore(old, target)
            shutil.rmtree(new, ignore_errors=True)
            lock.unlink()
            with contextlib.suppress(OSError):  # another process has just started to build
                place.rmdir()


def _restore(old: Path, target: Path) -> None:
    """Moves the old set back if there is no new one in its place; otherwise removes it."""
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _features(kind: Kind, classes: Sequence[str]) -> Any:
    features = catalog.library().features
    content_feature = {"image": features.Image, "audio": features.Text}[kind]
    file = {"image": "an image file", "audio": "a recording's file"}[kind]
    return features.FeaturesDict(
        {
            CONTENT_FEATURE[kind]: content_feature(doc=f"the bytes of {file}"),
            "label": features.ClassLabel(names=classes),
            "group": features.Text(doc="examples of one group belong in one split; '': no group"),
            "path": features.Text(doc="path of the file"),
            "sha256": features.Text(doc="of the file, hexadecimal"),
        }
    )


def _example(manifest: Manifest, item: Item, signature: Signature) -> dict[str, Any]:
    """Returns an item as an example of the set, after checking that its file is unchanged."""
    try:
        data = manifest.read(item)
    except BadFileError as error:
        raise UserError(f"{item.path}: {error}; run the command again") from error
    if hashlib.sha256(data).hexdigest() != signature.sha256:
        raise UserError(f"{item.path} changed during the build; run the command again")
    return {
        CONTENT_FEATURE[manifest.kind]: io.BytesIO(data) if manifest.kind == "image" else data,
        "label": item.label,
        "group": os.fsencode(item.group),
        "path": os.fsencode(item.path),
        "sha256": signature.sha256,
    }
