"""Keys as options of commands."""

import argparse
import functools
from collections.abc import Container, Iterable
from typing import Any

from meljax.config import KEYS
from meljax.config.keys import SHORT_NAMES, help_text, parse_value
from meljax.util import console
from meljax.util.console import KEY_PREFIX, Parser


def add_keys(
    parser: Parser,
    keys: Iterable[str],
    title: str,
    prefixed_only: bool = False,
    hidden: Container[str] = (),
) -> None:
    """Adds the options --KEY and --config.KEY for each key.

    The help lists them under `title`, except those in `hidden`, which other arguments explain.

    The last part of a key is an option too, unless another key has the same last part or the
    command has an option of that name, which must be added before. With `prefixed_only`, there is
    only --config.KEY.
    """
    own, keys = set(parser.options), list(keys)
    for key in keys:
        names, short = [f"{KEY_PREFIX}{key}"], key.split(".")[1]
        if not prefixed_only:
            names.append(f"--{key}")
        if not prefixed_only and short in SHORT_NAMES and f"--{short}" not in own:
            names.append(f"--{short}")
        parser.add_argument(
            *names,
            dest=key,
            type=functools.partial(parse_value, key),
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    shown = [key for key in keys if key not in hidden]
    text = help_text(shown, KEY_PREFIX if prefixed_only else "--", console.width())
    parser.epilog = f"{title}:\n{text}"


def given_keys(parser: Parser, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of the keys that were given, `{'train.epochs': 20}`.

    The positional argument `data`, if the command has it, is the key data.path.

    Raises:
      UserError: data.path is given twice.
    """
    given = {name: value for name, value in vars(arguments).items() if name in KEYS}
    data = vars(arguments).get("data")
    if data == "":
        parser.error("DATA is empty; leave it out, or name the data")
    if data is not None and "data.path" in given:
        parser.error("DATA and --data.path are the same setting; give one of them")
    return given if data is None else given | {"data.path": data}
