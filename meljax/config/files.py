"""Files of settings: the presets that travel with the package, and files of users."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meljax.config.keys import Config, from_flat
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
        tree = _call_get_config(place, [argument] if colon else [])
        values = {f"{group}.{key}": tree[group][key] for group in tree for key in tree[group]}
    except (Exception, SystemExit) as error:  # a file of settings may raise anything
        raise UserError(f"--config {file}: {type(error).__name__}: {first_line(error)}") from None
    return from_flat(values | overrides)


def default_workdir(path: str, file: str) -> Path:
    """Returns `runs/<data>-<settings>` for the data at `path` and the file of settings."""
    place = Path(os.path.abspath(os.path.expanduser(path)))
    data = place.stem if place.is_file() else place.name
    if path.startswith("tfds:"):
        data = re.split("[:/]", path)[1]
    return Path("runs") / f"{data if path else 'embedded'}-{stem(file)}"


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
    if not Path(path).is_file():
        problem = "a folder" if Path(path).is_dir() else "no such file"
        raise UserError(
            f"--config {path}: {problem}; give {', '.join(PRESETS)}, or a file like "
            "configs/quick.py"
        )
    return Path(path)


def _call_get_config(file: Path, arguments: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """Runs the file and returns `get_config(*arguments)` as plain dictionaries."""
    spec = importlib.util.spec_from_file_location("meljax_settings", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = module.get_config(*arguments)
    return settings.to_dict() if hasattr(settings, "to_dict") else settings
