"""Trains a classifier of recordings, with the settings of a file:

    python -m meljax.main --config FILE [--workdir DIR] [--config.KEY=VALUE ...]

FILE is a Python file of settings, such as configs/resnet.py, configs/cnn.py or configs/quick.py.
DIR is by default runs/<name of the file>. `meljax train` does the same with shorter arguments.
"""

from collections.abc import Sequence
from pathlib import Path

from meljax.commands import train
from meljax.commands.keys import given_keys
from meljax.config import Config
from meljax.config.files import read_settings, stem
from meljax.util import console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the training command; returns its exit code (2: an error that the user can fix)."""
    return train.run(lambda: parse(argv))


def parse(argv: Sequence[str] | None) -> tuple[Config, Path]:
    """Returns the checked settings and the directory of the run, or raises `UserError`."""
    parser = console.Parser(__doc__)
    file, arguments = train.parse_run(parser, argv, prefixed_only=True)
    if not file:
        parser.error("--config must name a file of settings, for example configs/quick.py")
    config = read_settings(file, given_keys(parser, arguments))
    return config, Path(arguments.workdir or Path("runs") / stem(file))


if __name__ == "__main__":
    console.leave(main())
