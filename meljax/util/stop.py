"""Stops a command at Ctrl-C or SIGTERM: at once, between two steps, or after a time limit."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from meljax.util.errors import UserError

STOP_SECONDS = 4.0
"""Maximum time in s from a signal to the end of the process."""

SAVE_SECONDS = 60.0
"""The same, while something is being saved."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A request to stop, by Ctrl-C or SIGTERM.

    The first signal raises `KeyboardInterrupt`. Within `deferred` and `saving` the exception waits
    for the end of the block. If it is lost, as in a callback of C code, `check` raises it again.
    With the time limit of commands, later signals have no effect, and a thread ends the process
    after `STOP_SECONDS`. Without it, a second signal raises at once.

    Attributes:
      hint: returns what was saved and how to resume, for the line that is printed.
    """

    def __init__(self) -> None:
        self.hint: Callable[[], str] = lambda: ""
        self._signal: int | None = None
        self._deferring = 0
        self._saving = False
        self._limited = True

    def receive(self, signum: int, _: object) -> None:
        """Handles the signal."""
        earlier, self._signal = self._signal, self._signal or signum
        # Without a time limit, a second Ctrl-C stops at once.
        if (earlier and not self._limited) or not (earlier or self._deferring):
            raise KeyboardInterrupt(signum)

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if a signal has arrived."""
        if self._signal is not None:
            raise KeyboardInterrupt(self._signal)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Lets the block end before a signal stops the command; the block may `check`."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1
        self.check()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Like `deferred`, with `SAVE_SECONDS` for the block."""
        self._saving = True
        try:
            with self.deferred():
                yield
        finally:
            self._saving = False

    @contextlib.contextmanager
    def handling_signals(self, signals: Sequence[int], limited: bool = True) -> Iterator[None]:
        """Handles `signals` inside the block, and restores the earlier handlers after it.

        A `KeyboardInterrupt` lost in a callback is not reported, because `check` raises it again.
        If `limited`, the process ends at most `STOP_SECONDS` after the first signal, or
        `SAVE_SECONDS` while it is `saving`.
        """
        report = sys.unraisablehook

        def report_others(unraisable: Any) -> None:
            if not issubclass(unraisable.exc_type, KeyboardInterrupt):
                report(unraisable)

        self._limited = limited
        with self._time_limit() if limited else contextlib.nullcontext():
            before = [signal.signal(number, self.receive) for number in signals]
            sys.unraisablehook = report_others
            try:
                yield
            except (UserError, OSError):
                raise
            except Exception:
                # A library may turn the interrupt into an error of its own, as NumPy's import does.
                self.check()
                raise
            finally:
                sys.unraisablehook = report
                for number, handler in zip(signals, before, strict=True):
                    signal.signal(number, handler)

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Ends the process if it takes too long after a signal, even if it never returns to Python.

        Python runs signal handlers only between two instructions of the main thread, but writes the
        number of a signal to a pipe at once. A thread reads it there.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        done = threading.Event()

        def watch() -> None:
            number = os.read(read_end, 1)
            while number and number[0] not in SIGNALS:  # such as that of a resized terminal
                number = os.read(read_end, 1)
            os.close(read_end)
            arrived = time.monotonic()
            while number and not done.wait(0.05):
                limit = SAVE_SECONDS if self._saving else STOP_SECONDS
                if time.monotonic() > arrived + limit:
                    print(f"\n{self.line()}", file=sys.stderr, flush=True)
                    os._exit(128 + number[0])

        before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        watcher = threading.Thread(target=watch, name="stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            done.set()
            os.close(write_end)
            watcher.join()

    def line(self) -> str:
        """Returns the line that is printed after a stop."""
        hint = self.hint()
        return f"meljax: stopped{f'; {hint}' if hint else ''}"
