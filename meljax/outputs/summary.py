"""Counts of rows per hour and class, or per file and class."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from meljax.outputs.rows import Row
from meljax.util.csv_file import csv_line
from meljax.util.files import write_atomically
from meljax.util.progress import ending


class Summary:
    """Counts rows by status and label, and by date and hour (if `timed`) or by path."""

    def __init__(self, timed: bool):
        self._timed = timed
        self._counts: dict[tuple[str, ...], _Count] = {}
        self._path = ""
        self._last: dict[tuple[str, ...], float] = {}  # end of each key's last row of this file

    def add(self, row: Row) -> None:
        """Counts a row; the rows of a file must come one after the other, by their starts."""
        date, _, clock = (row.get("time") or "").partition("T")
        key = (date, clock[:2]) if self._timed else (row["path"],)
        key += (row["status"], row.get("label") or "")
        count = self._counts.setdefault(key, _Count())
        count.rows += 1
        if row["path"] != self._path:
            self._path = row["path"]
            self._last.clear()
        count.files.add(row["path"])
        if row.get("duration") is not None:
            # Overlapping windows of one class count once.
            begin = max(row["start"], self._last.get(key[-2:], 0.0))
            count.seconds = (count.seconds or 0.0) + max(0.0, row["end"] - begin)
            self._last[key[-2:]] = row["end"]

    def csv(self) -> str:
        """Returns the counts as CSV."""
        names = ["date", "hour"] if self._timed else ["path"]
        lines = [csv_line([*names, "status", "label", "rows", "seconds", "files"])]
        for key, count in sorted(self._counts.items()):
            seconds = None if count.seconds is None else round(count.seconds, 3)
            lines.append(csv_line([*key, count.rows, seconds, len(count.files)]))
        return "".join(f"{line}\n" for line in lines)


class _Count:
    def __init__(self) -> None:
        self.rows = 0
        self.seconds: float | None = None
        self.files: set[str] = set()


@contextlib.contextmanager
def summary_writer(out: Path | None, timed: bool) -> Iterator[Callable[[Row], None]]:
    """Yields a function that counts a row; the counts are written to `out` when the block ends.

    They are written even if the block raises. `None` as `out`: nothing is counted.

    Raises:
      UserError: `out` cannot be written.
    """
    if out is None:
        yield lambda _: None
        return
    summary = Summary(timed)
    with ending(lambda: write_atomically(out, "\ufeff" + summary.csv(), "--summary")):
        yield summary.add
