"""Settings given as keyword arguments."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meljax.config.keys import SHORT_NAMES, check_name
from meljax.util.errors import UserError


def data_keys(data: str | Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `given` by full key, with the path of `data` unless that is `None`.

    Both 'epochs' and 'train.epochs' stand for 'train.epochs'. Paths become text.

    Raises:
      UserError: there is no such key, or it is given twice.
    """
    keys: dict[str, Any] = {} if data is None else {"data.path": os.fspath(data)}
    for name, value in given.items():
        full = SHORT_NAMES.get(name, name)
        check_name(full)
        if full in keys:
            raise UserError(f"{full} is given twice")
        keys[full] = os.fspath(value) if isinstance(value, Path) else value
    return keys
