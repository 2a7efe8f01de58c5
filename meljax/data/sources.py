"""Reads the manifest of the folder, table or TFDS set that data.path names."""

import os
from pathlib import Path

from meljax.config import DataConfig
from meljax.data.file_tree import read_tree
from meljax.data.folder import scan_folder
from meljax.data.manifest import Manifest
from meljax.data.tables import read_table
from meljax.data.tables.annotations import scan_annotation_file, scan_annotation_folder
from meljax.data.tables.metadata import scan_metadata
from meljax.data.tables.scan_table import scan_table
from meljax.data.tfds import catalog, examples
from meljax.util.errors import UserError
from meljax.util.files import exists

_TABLE_KEYS = ("root", "file_column", "split_column", "start_column", "end_column")
"""Keys of the data group that are for tables only."""


def read_manifest(data: DataConfig, training: bool = True) -> Manifest:
    """Returns the manifest of the folder, table or TFDS set `data.path`; no file is decoded.

    A TFDS set is downloaded if it is not in `data.tfds_dir`. `training`: whether training items of
    two classes are required, and keys that do not apply are errors.

    Raises:
      UserError: the path does not exist or the set cannot be used.
    """
    path = data.path
    if not path:
        raise UserError("data.path is empty; name a folder or a table")
    if catalog.is_name(path):
        if training:
            _check_unused(data, (*_TABLE_KEYS, "pattern"), "TFDS set")
        return examples.scan_set(path, data.tfds_dir, data.label, data.group, training)
    root = Path(os.path.expanduser(path))
    try:
        if root.is_dir():
            return _scan_folder(root, data, training)
        if root.is_file() and root.suffix.lower() in read_table.SUFFIXES:
            if training:
                _check_unused(data, ("pattern",), "table")
            return scan_annotation_file(root, data, training) or scan_table(root, data, training)
        check_exists(path)
    except OSError as error:
        raise UserError(
            f"data.path: {error.filename or path!r} cannot be read ({error.strerror}); "
            "check its permissions"
        ) from error
    raise _no_data(path, "is neither a folder nor a table")


def check_exists(path: str) -> None:
    """Raises `UserError` if there is no folder or file at `path`."""
    if not exists(os.path.expanduser(path)):
        raise _no_data(path, "does not exist")


def _no_data(path: str, problem: str) -> UserError:
    return UserError(
        f"data.path: {path!r} {problem}; name a folder with one sub-folder per class, a table "
        f"({' '.join(read_table.SUFFIXES)}), or a TFDS set as tfds:NAME"
    )


def _scan_folder(folder: Path, data: DataConfig, training: bool) -> Manifest:
    """Returns the manifest of a folder: by annotations, metadata, or class folders."""
    tree = read_tree(str(folder))
    if not data.pattern:
        for scan in (scan_annotation_folder, scan_metadata):
            if manifest := scan(folder, tree, data, training):
                return manifest
    if training:
        _check_unused(data, _TABLE_KEYS, "folder")
    return scan_folder(folder, tree, data, training)


def _check_unused(data: DataConfig, keys: tuple[str, ...], what: str) -> None:
    """Raises `UserError` if one of `keys`, which do not apply to the source, is set."""
    for key in keys:
        if value := getattr(data, key):
            use = "folders" if key == "pattern" else "tables"
            raise UserError(
                f"data.{key}={value!r} is for {use}, but data.path {data.path!r} is a {what}; "
                f"leave data.{key} out"
            )
