"""Shows what is understood of a data set, without training:

    meljax inspect [DATA] [--config CONFIG] [--KEY=VALUE ...]

Prints the classes with the number of files in each split, how the splits were decided, the window,
the lengths of the files, and which files are left out. The arguments are those of train.
"""

from collections.abc import Sequence

from meljax.commands.keys import add_keys, given_keys
from meljax.config import KEYS
from meljax.config.files import PRESETS, read_settings
from meljax.util import console
from meljax.util.console import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(__doc__)
    parser.add_argument("data", metavar="DATA", nargs="?", help="short for --data.path=DATA")
    config_help = f"{', '.join(PRESETS)} (default: {PRESETS[0]}) or a file of settings"
    parser.add_argument("--config", metavar="CONFIG", default=PRESETS[0], help=config_help)
    add_keys(parser, KEYS, "keys, each with its value if CONFIG sets no other")

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        config = read_settings(arguments.config, given_keys(parser, arguments))
        from meljax.workflows.inspect import inspect

        inspect(config)
        return 0

    return console.run(run)
