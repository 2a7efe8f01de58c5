"""Phrases of messages: counts, similar names, and text on one line."""

import difflib
from collections.abc import Iterable, Sequence


def count(number: int, noun: str) -> str:
    """Returns '1 epoch', '2 epochs'."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(names: Sequence[str], most: int = 10) -> str:
    """Returns the first `most` names, separated by commas, and the number of others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ' (the nearest is …)' for the most similar of `names`; '' if none is similar."""
    near = difflib.get_close_matches(name, sorted(names), n=1)
    return f" (the nearest is {near[0]!r})" if near else ""


def on_one_line(text: str) -> str:
    """Returns `text`, quoted and escaped if it has unprintable characters such as line breaks."""
    return text if text.isprintable() else repr(text)
