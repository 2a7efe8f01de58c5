"""Errors that a person can mend, told apart from our own bugs."""

from collections.abc import Iterable


class UserError(Exception):
    """Something the person who started the program can mend.

    The message is one line: what is wrong, where, and what to do. The command line prints it
    without a traceback and exits with 2.

    Attributes:
      details: lines listed before the message, for an error that many files share.
    """

    def __init__(self, message: str, details: Iterable[str] = ()):
        super().__init__(message)
        self.details = tuple(details)


class BadFileError(Exception):
    """One file that cannot be used. The message is the reason; who catches it knows the path."""
