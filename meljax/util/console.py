"""What all commands share: argument parser, signals and exit codes."""

import argparse
import collections
import contextlib
import difflib
import io
import logging as standard_logging
import os
import re
import shutil
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import logging

from meljax.util.errors import UserError, disk_full, no_permission
from meljax.util.native_output import keep_python_output
from meljax.util.stop import SIGNALS, StopRequest

KEY_PREFIX = "--config."
"""Prefix of an option for a key; most commands also accept the key without it."""


class Parser(argparse.ArgumentParser):
    """The parser of a command, whose `doc` shows the usage; wrong arguments raise `UserError`."""

    def __init__(self, doc: str):
        super().__init__(
            usage=argparse.SUPPRESS,
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    @property
    def options(self) -> list[str]:
        """The names of all options, such as '--help'."""
        return list(self._option_string_actions)

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Returns the arguments; options and positional arguments may come in any order.

        Raises:
          UserError: an argument is missing, unknown or not valid.
        """
        arguments, unknown = self.parse_known_args(self._ordered(argv))
        for each in sorted(unknown, key=lambda each: not each.startswith("-")):
            if each == "--":
                continue
            if each.startswith("--"):
                self.error(f"unknown option {each.partition('=')[0]}; {self._hint(each)}")
            key = each.partition("=")[0]
            hint = f"did you mean --{each}?" if f"--{key}" in self.options else ""
            self.error(f"unexpected argument {each!r}; {hint or '--help shows what is expected'}")
        return arguments

    def _ordered(self, argv: Sequence[str] | None) -> list[str]:
        """Returns the options as '--NAME=VALUE', then '--' and the positional arguments.

        argparse reads only this order right if a positional argument is optional. A single dash
        before a name is accepted too.
        """
        options, positional = [], []
        rest = iter(sys.argv[1:] if argv is None else argv)
        for each in rest:
            if each == "--":
                positional += rest
            elif not re.match(r"-[-a-z]", each):
                positional.append(each)
            else:
                name, equals, value = each.partition("=")
                name = name if name.startswith("--") or name == "-h" else f"-{name}"
                action = self._option_string_actions.get(name)
                if not equals and action and action.nargs is None:
                    following = next(rest, None)
                    if following is None:
                        self.error(f"{name} needs a value")
                    value, equals = following, "="
                if equals and value.startswith("--"):
                    self.error(f"{name} needs a value, not {value!r}")
                options.append(f"{name}{equals}{value}")
        return [*options, "--", *positional] if positional else options

    def error(self, message: str) -> NoReturn:
        """Raises `UserError`."""
        raise UserError(message)

    def _hint(self, option: str) -> str:
        """Returns a hint with the option most similar to `option`, with its prefix if possible."""
        alike = collections.defaultdict(list)
        for known in self.options:
            name = _bare(known)
            for part in {name, name.rpartition(".")[2]}:
                alike[part].append(known)
        nearest = difflib.get_close_matches(_bare(option), alike, n=1)
        if not nearest:
            return "--help lists all options"
        is_key = option.startswith(KEY_PREFIX)
        forms = sorted(alike[nearest[0]], key=len)
        same_form = [each for each in forms if each.startswith(KEY_PREFIX) == is_key]
        return f"did you mean {(same_form or forms)[0]}?"


def path(text: str) -> Path:
    """Returns `text` as a path; raises `UserError` if it is empty, as an unset variable is."""
    if not text:
        raise UserError("a path is empty; give a file or a directory")
    return Path(text)


def width() -> int:
    """Returns the width of help texts, in characters."""
    return min(shutil.get_terminal_size().columns, 100)


def _bare(option: str) -> str:
    """Returns the name in '--config.NAME=VALUE' or '--NAME'."""
    return option.partition("=")[0].removeprefix(KEY_PREFIX).lstrip("-")


def run(body: Callable[[StopRequest], int]) -> int:
    """Runs a command and returns its exit code.

    The exit code is what `body` returns; 2 after a `UserError`, on a full disk or without a
    permission (printed in one line); or 128 plus the signal's number if the command was stopped or
    the reader of its output has gone. Any other exception is a bug and keeps its traceback.
    """
    _make_output_tolerant()
    stop = StopRequest()
    try:
        with quiet_libraries(), stop.handling_signals(SIGNALS):
            code = body(stop)
            sys.stdout.flush()
            return code
    except UserError as error:
        for line in (*error.details, f"meljax: {' '.join(str(error).splitlines())}"):
            print(line, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"\n{stop.line()}", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    except BrokenPipeError:
        # Nobody reads the output any more: discard the rest of its buffer.
        _discard_output()
        return 128 + 13  # the number of SIGPIPE, which Windows does not define
    except Exception as error:
        reason = disk_full(error) or no_permission(error)
        if not reason:
            raise
        file = getattr(error, "filename", None)
        print(f"meljax: {f'{file}: ' if file else ''}{reason}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()  # the output itself goes to a full disk
        return 2


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences logs and warnings of libraries in the block."""
    # They log what they also raise, and orbax logs every file.
    asyncio, matplotlib = map(standard_logging.getLogger, ("asyncio", "matplotlib"))
    before = logging.get_verbosity(), asyncio.level, matplotlib.level
    logging.set_verbosity(logging.FATAL)
    asyncio.setLevel(standard_logging.CRITICAL)
    matplotlib.setLevel(standard_logging.ERROR)  # it warns of a home that cannot be written
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        # If one array of a checkpoint is damaged, orbax no longer waits for the others.
        abandoned = isinstance(unraisable.object, types.CoroutineType)
        if not abandoned and str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata
            yield
    finally:
        sys.unraisablehook = report
        logging.set_verbosity(before[0])
        asyncio.setLevel(before[1])
        matplotlib.setLevel(before[2])


def _discard_output() -> None:
    """Discards the rest of the output and of its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_output_tolerant() -> None:
    """Makes printing work for any file name, and without a standard output."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    keep_python_output()


def leave(code: int) -> None:
    """Ends the process with an exit code."""
    if code > 128:
        # Threads of XLA may still run after an interrupt, and would crash a regular exit.
        sys.stdout.flush()
        os._exit(code)
    if code:
        # Threads of orbax may still fail after a checkpoint could not be read.
        sys.unraisablehook = lambda _: None
    sys.exit(code)
