"""Trains a classifier of recordings, or resumes a run:

    meljax train [DATA] [--config CONFIG] [--workdir DIR] [--KEY=VALUE ...]

DATA is a folder with one sub-folder per class, a table, or a TFDS set as tfds:NAME; without it, the
embedded synthetic voices are used. CONFIG is quick (the default), cnn, resnet, or a Python file of
settings. DIR is by default runs/<name of the data>-<name of the settings>. A key is given by its
full name or its last part, --train.epochs=20 or --epochs 20. To resume a run that was stopped, run
the same command again.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from meljax.commands.keys import add_keys, given_keys
from meljax.config import KEYS, Config
from meljax.config.files import PRESETS, default_workdir, read_settings
from meljax.models import registry
from meljax.util import console
from meljax.util.console import Parser
from meljax.util.progress import say
from meljax.util.stop import StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run(lambda: parse(argv))


def parse(argv: Sequence[str] | None) -> tuple[Config, Path]:
    """Returns the checked settings and the directory of the run, or raises `UserError`."""
    parser = Parser(__doc__)
    parser.add_argument("data", metavar="DATA", nargs="?", help="short for --data.path=DATA")
    file, arguments = parse_run(parser, argv)
    if not file:
        file = PRESETS[0]
        say(f"config: {file}, the default; for others give --config {' or '.join(PRESETS[1:])}")
    config = read_settings(file, given_keys(parser, arguments))
    return config, Path(arguments.workdir or default_workdir(config.data.path, file))


def parse_run(
    parser: Parser, argv: Sequence[str] | None, prefixed_only: bool = False
) -> tuple[str, Namespace]:
    """Returns the value of --config ('' if not given) and all arguments.

    Adds --config, --workdir and the keys to `parser`; for `prefixed_only` see `add_keys`.
    """
    parser.add_argument("--config", metavar="CONFIG", action="append", help="settings, see above")
    parser.add_argument("--workdir", metavar="DIR", help="directory of the run")
    add_keys(parser, KEYS, "keys, each with its value if CONFIG sets no other", prefixed_only)
    parser.epilog += f"\n\n{registry.help_text()}"
    arguments = parser.parse(argv)
    files = arguments.config or [""]
    if len(files) > 1:
        parser.error("--config is given more than once; give one file of settings")
    return files[0], arguments


def run(parse_arguments: Callable[[], tuple[Config, Path]]) -> int:
    """Trains with the settings and directory of `parse_arguments`; returns the exit code."""

    def body(stop: StopRequest) -> int:
        stop.hint = lambda: "nothing was trained; run the same command again"
        config, workdir = parse_arguments()
        # Imported after the settings are checked, because importing JAX takes a while.
        from meljax.workflows.train import train

        train(config, workdir, stop)
        return 0

    return console.run(body)
