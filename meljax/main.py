"""Trains a classifier of voices:

  python -m meljax.main --config FILE [--workdir DIR] [--config.KEY=VALUE ...]

--config   file of settings, such as configs/resnet.py, configs/cnn.py or configs/quick.py
--workdir  where the run is written, or goes on if one lies there (default: runs/<config name>)
"""

import contextlib
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from meljax import cli
from meljax import config as config_lib
from meljax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the training command; returns its exit code (2: something the caller can mend)."""
    argv = list(sys.argv if argv is None else argv)
    hint = "the same command goes on after the last epoch that was saved"
    return cli.run(lambda: _train(argv), hint)


def _train(argv: list[str]) -> int:
    if {"--help", "-help", "-h"} & set(argv[1:]):
        width = min(shutil.get_terminal_size().columns, 100)
        print(__doc__ + "\nKeys, each with its default:\n" + config_lib.help_text(width))
        return 0
    config, workdir = parse(argv)
    # Settings are checked before JAX is loaded: a slip is answered at once.
    from meljax.train import train

    stop = StopRequest()
    signal.signal(signal.SIGINT, stop.receive)
    signal.signal(signal.SIGTERM, stop.receive)
    with stop.swallowed_quietly():
        train(config, workdir, stop.check)
    return 0


class StopRequest:
    """Ctrl-C or a friendly kill.

    It is raised where it arrives. Should that be inside a callback of C code, which swallows it,
    `check` raises it again.
    """

    def __init__(self) -> None:
        self._signal: int | None = None

    def receive(self, signum: int, _: object) -> None:
        """Handles the signal."""
        self._signal = signum
        raise KeyboardInterrupt(signum)

    @contextlib.contextmanager
    def swallowed_quietly(self) -> Iterator[None]:
        """Keeps Python from reporting what a callback swallowed: `check` will raise it."""
        before = sys.unraisablehook

        def report(unraisable: Any) -> None:
            if not issubclass(unraisable.exc_type, KeyboardInterrupt):
                before(unraisable)

        sys.unraisablehook = report
        try:
            yield
        finally:
            sys.unraisablehook = before

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if a signal came."""
        if self._signal is not None:
            raise KeyboardInterrupt(self._signal)


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
            raise UserError(
                f"unexpected argument {stray[0]!r}; settings are given as "
                "--config.KEY=VALUE, --help lists them"
            )
        if values.config is None:
            raise UserError(
                "--config must name a file whose get_config() returns the settings, "
                "for example configs/quick.py"
            )
        config = config_lib.read(values.config.to_dict())
    except flags.UnrecognizedFlagError as error:
        known = error.flagname in config_lib.KEYS
        hint = f"did you mean --config.{error.flagname}?" if known else "--help lists what there is"
        raise UserError(f"unknown flag --{error.flagname}; {hint}") from None
    except flags.Error as error:
        raise UserError(f"{_cause(error)}; --help lists what there is") from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a file of settings may raise anything at all
        raise UserError(f"--config {_config_file(argv)}: {_cause(error)}") from None
    return config, Path(values.workdir or Path("runs") / Path(_config_file(argv)).stem)


def _check_overrides(argv: Sequence[str]) -> None:
    """Checks `--config.KEY=VALUE` ahead of absl, which answers with tracebacks."""
    if len(_config_files(argv)) > 1:
        raise UserError("--config is given more than once; give one file of settings")
    file = _config_file(argv)
    if file and not Path(file).is_file():
        raise UserError(f"--config {file}: {'a folder' if Path(file).is_dir() else 'no such file'}")
    if hidden := [a for a in argv if re.match(r"--?(flagfile|undefok)\b", a)]:
        raise UserError(f"{hidden[0]} is not supported; give each setting as --config.KEY=VALUE")
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?config\.([^=]*)(=?)(.*)", argument, re.DOTALL):
            name, equals, text = match.groups()
            config_lib.check_text(name, text if equals else following)


def _config_file(argv: Sequence[str]) -> str:
    """Returns the path given as `--config FILE` or `--config=FILE`; empty if there is none."""
    return next(iter(_config_files(argv)), "")


def _config_files(argv: Sequence[str]) -> list[str]:
    """Returns each path given with `--config`, without a `:argument`."""
    found = []
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?config(?:=(.*))?$", argument, re.DOTALL):
            found.append((match[1] if match[1] is not None else following).split(":")[0])
    return found


def _cause(error: BaseException) -> str:
    """Returns an error's type and message; ml_collections hides them in a traceback's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    if raised:
        return raised[-1]
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    cli.leave(main())
