"""Rows as a table for people."""

import shutil
import sys
from collections.abc import Sequence

from tqdm.utils import disp_len

from meljax.evaluation.status import OK
from meljax.outputs.rows import Row
from meljax.util.phrases import on_one_line

WIDEST_PATH = 60
"""Maximum width of the path column off a terminal; longer paths shift the other columns."""

_WIDEST_LABEL = 20
_NARROWEST_PATH, _NARROWEST_LABEL = 15, 9
_GAP = "  "
_STATUSES = ("(silence)", "(unknown)", "(background)")


class TerminalTable:
    """The layout of a table.

    On a terminal, the table is as wide as the terminal: paths (at their start) and labels are
    shortened, and columns that still do not fit are left out.

    Attributes:
      widths: widths of the columns that are shown, by name.
      left_out: names of columns that do not fit.
    """

    def __init__(
        self,
        columns: Sequence[str],
        paths: Sequence[str],
        classes: Sequence[str],
        terminal: int | None,
    ):
        """Makes the layout for rows with these columns, paths and classes.

        `terminal` is the width of the terminal; `None`: the table is not on one.
        """
        names = (*classes, *_STATUSES)
        label = min(_WIDEST_LABEL, max(disp_len(on_one_line(each)) for each in names))
        path = max(len("path"), *(disp_len(on_one_line(each)) for each in paths))
        known = {"path": path, "time": len("2024-05-17 04:30:00")}
        self.widths = {
            column: label if column.startswith("label") else known.get(column, max(8, len(column)))
            for column in columns
            if column not in ("status", "error")
        }
        self.left_out: list[str] = []
        self._shorten = terminal is not None
        if terminal is None:
            self.widths["path"] = min(path, WIDEST_PATH)
        else:
            self._fit(terminal)

    def _fit(self, terminal: int) -> None:
        """Makes the table as wide as the terminal."""
        wanted, labels = dict(self.widths), [each for each in self.widths if each[:5] == "label"]
        for column in ("path", *labels):
            lowest = _NARROWEST_PATH if column == "path" else _NARROWEST_LABEL
            self.widths[column] = min(lowest, wanted[column])
        more = [each for each in self.widths if each.startswith(("label_", "probability_"))]
        removable = ["time", *reversed(more), "end", "start"]
        for column in removable:
            if self._width() > terminal and column in self.widths:
                del self.widths[column]
                self.left_out.append(column)
        for column in (*labels, "path"):
            if column in self.widths:
                spare = max(0, terminal - self._width())
                self.widths[column] += min(spare, wanted[column] - self.widths[column])

    def _width(self) -> int:
        return sum(self.widths.values()) + len(_GAP) * (len(self.widths) - 1)

    @property
    def header(self) -> str:
        """The line of column names."""
        return self.line({column: column for column in self.widths})

    def line(self, row: Row) -> str:
        """Returns a row in columns; an error replaces all columns after the path.

        A status other than 'ok' replaces the label.
        """
        if row.get("error"):
            path = self._cell("path", row["path"])
            return f"{path}{_GAP}ERROR: {on_one_line(row['error'])}"
        if row.get("status", OK) != OK:
            row = row | {"label": f"({row['status']})"}
        return _GAP.join(self._cell(column, row.get(column)) for column in self.widths).rstrip()

    def _cell(self, column: str, value: str | float | int | None) -> str:
        if isinstance(value, float):
            value = f"{value:.1%}" if column.startswith("probability") else f"{value:.2f}"
        elif column == "time" and value:
            value = str(value)[:19].replace("T", " ")
        text, width = "" if value is None else on_one_line(str(value)), self.widths[column]
        if self._shorten and disp_len(text) > width:
            text = _shortened(text, width, keep_end=column == "path")
        padding = " " * max(0, width - disp_len(text))
        if column.startswith(("start", "end", "probability")):
            return padding + text
        return text + padding


def _shortened(text: str, width: int, keep_end: bool) -> str:
    """Returns a text cut to `width`, with '…' for what is cut at its start or end."""
    while text and disp_len(text) > width - 1:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text}…"


def terminal_width() -> int | None:
    """Returns the width of the terminal that shows the output; `None` if it is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
