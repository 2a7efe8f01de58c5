"""Trains a classifier of voices:

  python -m meljax.main --config FILE [--workdir DIR] [--config.KEY=VALUE ...]

--config   file of settings, such as configs/resnet.py, configs/cnn.py or configs/quick.py
--workdir  directory of the run, which is resumed if it exists (default: runs/<config name>)
"""

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from meljax import config as config_lib
from meljax.models import registry
from meljax.util import console
from meljax.util.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the training command; returns its exit code (2: an error that the user can fix)."""
    argv = list(sys.argv if argv is None else argv)
    hint = "run the same command again to resume from the last saved epoch"
    return console.run(lambda stop: _train(argv, stop), hint)


def _train(argv: list[str], stop: console.StopRequest) -> int:
    if {"--help", "-help", "-h"} & set(argv[1:]):
        width = min(shutil.get_terminal_size().columns, 100)
        print(__doc__ + "\nKeys, each with its default:\n" + config_lib.help_text(width))
        print("\n" + registry.help_text())
        return 0
    config, workdir = parse(argv)
    # Imported after the settings are checked, because importing JAX takes a while.
    from meljax.workflows.train import train

    train(config, workdir, stop.check)
    return 0


def parse(argv: Sequence[str]) -> tuple[config_lib.Config, Path]:
    """Returns the checked settings and the directory of the run.

    Raises:
      UserError: an unknown flag or key, an invalid value, a missing or broken file of settings, or
        an unexpected argument.
    """
    file = _check_overrides(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(argv))
    flags.DEFINE_string("workdir", "", "directory of the run", flag_values=values)
    try:
        stray = values(list(argv))[1:]
        if stray:
            raise UserError(
                f"unexpected argument {stray[0]!r}; settings are given as "
                "--config.KEY=VALUE, --help lists them"
            )
        if values.config is None:
            raise UserError(
                "--config must be a file whose get_config() returns the settings, "
                "for example configs/quick.py"
            )
        config = config_lib.read(values.config.to_dict())
        registry.check(config.model)
    except flags.UnrecognizedFlagError as error:
        known = error.flagname in config_lib.KEYS
        hint = f"did you mean --config.{error.flagname}?" if known else "--help lists all flags"
        raise UserError(f"unknown flag --{error.flagname}; {hint}") from None
    except flags.Error as error:
        raise UserError(f"{_cause(error)}; --help lists all flags") from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a file of settings may raise anything
        raise UserError(f"--config {file}: {_cause(error)}") from None
    return config, Path(values.workdir or Path("runs") / Path(file).stem)


def _check_overrides(argv: Sequence[str]) -> str:
    """Checks `argv` before absl does, which would print tracebacks; returns --config, if given."""
    files = _config_files(argv)
    if len(files) > 1:
        raise UserError("--config is given more than once; give one file of settings")
    file = "".join(files)
    if file and not Path(file).is_file():
        raise UserError(f"--config {file}: {'a folder' if Path(file).is_dir() else 'no such file'}")
    if hidden := [a for a in argv if re.match(r"--?(flagfile|undefok)\b", a)]:
        raise UserError(f"{hidden[0]} is not supported; give each setting as --config.KEY=VALUE")
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?config\.([^=]*)(=?)(.*)", argument, re.DOTALL):
            name, equals, text = match.groups()
            config_lib.check_text(name, text if equals else following)
    return file


def _config_files(argv: Sequence[str]) -> list[str]:
    """Returns each path given as `--config FILE` or `--config=FILE`, without a `:argument`."""
    found = []
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?config(?:=(.*))?$", argument, re.DOTALL):
            found.append((match[1] if match[1] is not None else following).split(":")[0])
    return found


def _cause(error: BaseException) -> str:
    """Returns an error's type and message, which ml_collections hides in a traceback's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    if raised:
        return raised[-1]
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    console.leave(main())
