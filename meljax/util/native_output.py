"""Hides what C libraries print to the standard error of the process."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_STDERR = 2


class _Hiding:
    """Counts the blocks, in all threads, in which the output is hidden."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._original = -1

    def enter(self) -> None:
        with self._lock:
            if not self._blocks:
                self._original = os.dup(_STDERR)  # child processes do not inherit it
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, _STDERR)
                os.close(nowhere)
            self._blocks += 1

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                os.dup2(self._original, _STDERR)
                os.close(self._original)


_hiding = _Hiding()


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Discards what C libraries, such as libtiff and mpg123, print to stderr in the block.

    They also return what they print as an error. Python's own output is discarded too, unless
    `keep_python_output` was called.
    """
    _hiding.enter()
    try:
        yield
    finally:
        _hiding.leave()


def keep_python_output() -> None:
    """Gives `sys.stderr` a descriptor of its own, which `hidden` does not change."""
    stream = sys.stderr
    if stream is not None and stream is sys.__stderr__:
        sys.stderr = open(  # noqa: SIM115 - until the process ends
            os.dup(_STDERR), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
        )
