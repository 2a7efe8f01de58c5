"""Trains a classifier of voices:

  python -m meljax.main --config FILE [--workdir DIR] [--config.KEY=VALUE ...]

--config   file of settings, such as configs/resnet.py, configs/cnn.py or configs/quick.py
--workdir  where the run is written, or goes on if one lies there (default: runs/<config name>)
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from meljax import config as config_lib
from meljax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the training command; returns its exit code (2: something the caller can mend)."""
    # orbax and others report every file they touch, which would drown what a person wants to read.
    logging.set_verbosity(logging.ERROR)
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(__doc__ + "\nKeys, each with its default:\n" + config_lib.help_text())
        return 0
    try:
        config, workdir = parse(argv)
        # Settings are checked before JAX is loaded: a slip is answered at once.
        from meljax.train import train

        train(config, workdir)
    except UserError as error:
        for line in (*error.details, f"meljax: {' '.join(str(error).splitlines())}"):
            print(line, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nmeljax: stopped; the same command goes on from the last epoch", file=sys.stderr)
        return 130
    return 0


def parse(argv: Sequence[str]) -> tuple[config_lib.Config, Path]:
    """Returns the checked settings and the working directory that `argv` asks for.

    Raises:
      UserError: an unknown flag or key, a value that cannot be, a file of settings that is missing
        or faulty, a stray argument.
    """
    _check_overrides(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(argv))
    flags.DEFINE_string("workdir", "", "directory of the run", flag_values=values)
    try:
        stray = values(list(argv))[1:]
        if stray:
            raise UserError(f"unexpected argument {stray[0]!r}; settings are given as "
                            "--config.KEY=VALUE, --help lists them")  # fmt: skip
        if values.config is None:
            raise UserError("--config must name a file whose get_config() returns the settings, "
                            "for example configs/quick.py")  # fmt: skip
        config = config_lib.read(values.config.to_dict())
    except flags.Error as error:
        raise UserError(f"{error}; --help lists what there is") from None
    except UserError:
        raise
    except Exception as error:  # a file of settings may raise anything at all
        raise UserError(f"--config {_config_file(argv)}: {_last_line(error)}") from None
    return config, Path(values.workdir or Path("runs") / Path(_config_file(argv)).stem)


def _check_overrides(argv: Sequence[str]) -> None:
    """Checks `--config.KEY=VALUE` ahead of absl, which answers with tracebacks."""
    file = _config_file(argv)
    if file and not Path(file).is_file():
        raise UserError(f"--config {file}: no such file")
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?config\.([^=]*)(=?)(.*)", argument, re.DOTALL):
            name, equals, text = match.groups()
            config_lib.check_text(name, text if equals else following)


def _config_file(argv: Sequence[str]) -> str:
    """Returns the path given as `--config FILE` or `--config=FILE`, without a `:argument`."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?config(?:=(.*))?$", argument, re.DOTALL):
            return (match[1] if match[1] is not None else following).split(":")[0]
    return ""


def _last_line(error: Exception) -> str:
    """ml_collections puts a whole traceback into the message; its last line says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
