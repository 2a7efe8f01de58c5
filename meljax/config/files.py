"""Files of settings: the presets that travel with the package, and files of users."""

import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meljax.config.keys import GROUPS, Config, from_flat
from meljax.util.errors import UserError, first_line

PRESETS = ("quick", "cnn", "resnet")
"""Names of the files in `configs/`."""


def read_settings(file: str, overrides: Mapping[str, Any]) -> Config:
    """Returns the checked settings of a file, with the keys of `overrides` replaced.

    Args:
      file: the name of a preset, or the path of a Python file with a function `get_config`. In
        `FILE:ARGUMENT`, the text after the colon is the function's argument.
      overrides: values by key, `{'train.epochs': 20}`.

    Raises:
      UserError: there is no such file, it is broken, or a value is not allowed.
    """
    path, colon, argument = file.partition(":")
    place = _place(path)
    try:
        tree = dict(_call_get_config(place, [argument] if colon else [], overrides))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file of settings may raise anything
        raise UserError(f"--config {file}: {type(error).__name__}: {first_line(error)}") from None
    values: dict[str, Any] = {}
    for group, keys in tree.items():
        if group not in GROUPS or not isinstance(keys, Mapping):
            raise UserError(
                f"--config {file}: unknown group of keys {group!r}; keys look like train.epochs"
            )
        values |= {f"{group}.{key}": value for key, value in keys.items()}
    return from_flat(values | overrides)


def default_workdir(path: str, file: str) -> Path:
    """Returns `runs/<data>-<settings>` for the data at `path` and the file of settings."""
    if path.startswith("tfds:"):
        data = re.split("[:/]", path)[1]
    else:
        place = _absolute(os.path.expanduser(path)) if path else "embedded"
        data = Path(place).stem if os.path.isfile(place) else Path(place).name
    return Path("runs") / f"{data or 'data'}-{stem(file)}"


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # the current directory was removed
        return path


def stem(file: str) -> str:
    """Returns the name of a preset or file of settings, without folder, suffix and argument."""
    return Path(file.partition(":")[0]).stem


def preset_file(name: str) -> Path:
    """Returns the path of a preset: inside an installed package, beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / f"{name}.py"
    return installed if installed.exists() else package.parent / "configs" / f"{name}.py"


def _place(path: str) -> Path:
    """Returns the file that `path` names; a preset's name always means the preset."""
    if path in PRESETS:
        return preset_file(path)
    if not os.path.isfile(path):
        problem = "a folder" if os.path.isdir(path) else "no such file"
        raise UserError(
            f"--config {path}: {problem}; give {', '.join(PRESETS)}, or a file like "
            "configs/quick.py"
        )
    return Path(path)


def _call_get_config(
    file: Path, arguments: list[str], overrides: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Runs the file; returns `get_config(*arguments)` with `overrides` as plain dictionaries."""
    loader = importlib.machinery.SourceFileLoader("meljax_settings", str(file))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader, origin=str(file))
    )
    sys.modules[loader.name] = module  # dataclasses look their module up
    loader.exec_module(module)
    settings = module.get_config(*arguments)
    if not hasattr(settings, "to_dict"):
        return settings
    with settings.ignore_type():
        for name, value in overrides.items():
            group, key = name.split(".")
            # Set here, because other values may refer to this one.
            if group in settings and key in settings[group]:
                settings[group][key] = value
    return settings.to_dict()
