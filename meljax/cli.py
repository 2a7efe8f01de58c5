"""What all commands share: how they answer a person, and how they end."""

import argparse
import contextlib
import io
import logging as standard_logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping

from absl import logging

from meljax.errors import UserError


def parser(command: str, doc: str) -> argparse.ArgumentParser:
    """Returns the parser of `python -m meljax.COMMAND`, which `doc` describes."""
    return argparse.ArgumentParser(
        prog=f"python -m meljax.{command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(body: Callable[[], int], when_stopped: str = "") -> int:
    """Runs a command's `body`; returns its exit code.

    That is what `body` returns, 2 for something the caller can mend, said in one line, or 128 and
    the signal's number for a command that was stopped or whose reader has gone.

    Args:
      body: the command.
      when_stopped: what to say where it was stopped, or the system failed it.
    """
    # What orbax and others log, every file they touch and every thread that an interrupt meets,
    # would drown what a person wants to read; what goes wrong is raised as well.
    logging.set_verbosity(logging.FATAL)
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end
    hint = f"; {when_stopped}" if when_stopped else ""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return body()
    except UserError as error:
        for line in (*error.details, f"meljax: {' '.join(str(error).splitlines())}"):
            print(line, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"\nmeljax: stopped{hint}", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    except BrokenPipeError:
        # Whoever read the output has gone; what is still in its buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as if SIGPIPE, which Windows does not know, had ended us
    except OSError as error:
        # A full disk, a vanished directory: nothing that a traceback would help to mend.
        print(f"meljax: {error}{hint}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def renamed(words: Mapping[str, str]) -> Iterator[None]:
    """Lets errors name a command's own flags where they speak of training's keys."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for key, flag in words.items():
            message = message.replace(key, flag)
        raise UserError(message, error.details) from None


def _stop(signum: int, _: object) -> None:
    raise KeyboardInterrupt(signum)


def leave(code: int) -> None:
    """Ends the process."""
    if code > 128:
        # Stopped in mid-computation: XLA's threads may still run, and crash a tidy exit.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
