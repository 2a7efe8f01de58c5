"""Reads the manifest of the folder, CSV or TFDS set that data.path names."""

import os
from pathlib import Path

from meljax.data.csv_table import scan_csv
from meljax.data.folder import scan_folder
from meljax.data.manifest import Manifest
from meljax.data.tfds import catalog, examples
from meljax.util.errors import UserError


def read_manifest(
    path: str, tfds_dir: str, label: str, group: str, training: bool = True
) -> Manifest:
    """Returns the manifest of a folder, a CSV or a TFDS set; no file is decoded.

    Args:
      path: a folder with one sub-folder per class, or with `train`, `val` and `test` that hold
        such folders; a CSV with the columns `path`, `label` and optionally `group` and `split`; or
        'tfds:NAME[/CONFIG][:VERSION]', a set that is downloaded if it is not in `tfds_dir`.
      tfds_dir: folder of TFDS sets; '': the default of TFDS.
      label: CSV column or TFDS feature that holds the class.
      group: CSV column or TFDS feature; items that share a value, e.g. the speaker, stay in one
        split. The column 'group' may be missing; '': no groups.
      training: whether training items of two classes are required.

    Raises:
      UserError: the path does not exist or the set cannot be used.
    """
    if not path:
        raise UserError("data.path is empty; name a folder or a CSV")
    if catalog.is_name(path):
        return examples.scan_set(path, tfds_dir, label, group, training)
    root = Path(os.path.expanduser(path))
    try:
        if root.is_dir():
            return scan_folder(root, label, group, training)
        if root.is_file() and root.suffix.lower() == ".csv":
            return scan_csv(root, label, group, training)
        problem = "is neither a folder nor a .csv file" if root.exists() else "does not exist"
    except OSError as error:
        raise UserError(
            f"data.path: {error.filename or path!r} cannot be read ({error.strerror}); "
            "check its permissions"
        ) from error
    raise UserError(
        f"data.path: {path!r} {problem}; name a folder with one sub-folder per class, a CSV, or a "
        "TFDS set as tfds:NAME"
    )
