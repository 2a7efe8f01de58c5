"""Helpers for tests of folders and tables."""

import pytest

from meljax.config import DataConfig
from meljax.data.manifest import Manifest
from meljax.data.sources import read_manifest
from meljax.util.errors import UserError


def read(path: str, label: str = "label", group: str = "group", **keys: str | bool) -> Manifest:
    """Returns the manifest of a folder or table; `keys` are further fields of `DataConfig`."""
    return read_manifest(DataConfig(path=path, label=label, group=group, **keys))


def error_message(*args: str, **kwargs: str) -> str:
    """Returns the message of the `UserError` that `read` raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        read(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def paths(manifest: Manifest) -> list[str]:
    """Returns the paths of all items."""
    return [item.path for item in manifest.items]


def splits(manifest: Manifest) -> dict[str, str]:
    """Returns the split of each path."""
    return {item.path: item.split for item in manifest.items}
