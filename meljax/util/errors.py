"""Errors that the user can fix, as opposed to bugs."""

import errno
import os
import textwrap
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix.

    The message is one line: what is wrong, where, and what to do. `console.run` prints it without a
    traceback, after `details` (one line per bad file, or what was understood of the data), and
    exits with 2.
    """

    def __init__(self, message: str, details: Iterable[str] = ()):
        super().__init__(message)
        self.details = tuple(details)


class BadFileError(Exception):
    """A file that cannot be used. The message is the reason; whoever catches it adds the path."""


def disk_full(error: BaseException) -> str | None:
    """Returns the system's message for a full disk or a used-up quota: 'No space left on device'.

    `None` if neither `error` nor one of its causes is such an error. Libraries may raise another
    type than `OSError` with this message.
    """
    return _message_of(error, errno.ENOSPC, errno.EDQUOT)


def no_permission(error: BaseException) -> str | None:
    """Like `disk_full`, for a file that may not be read or written: 'Permission denied'."""
    return _message_of(error, errno.EACCES, errno.EPERM, errno.EROFS)


def _message_of(error: BaseException, *numbers: int) -> str | None:
    following: BaseException | None = error
    while following is not None:
        for number in numbers:
            words = os.strerror(number)
            if getattr(following, "errno", None) == number or words in str(following):
                return words
        following = following.__cause__ or following.__context__
    return None


def first_line(error: BaseException, width: int = 200) -> str:
    """Returns the first line of an error's message, or its type, in at most `width` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[0] if lines else type(error).__name__, width, placeholder=" …")
