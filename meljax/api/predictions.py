"""The result of `Model.predict`."""

import dataclasses
import html
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from meljax.outputs.rows import Row
from meljax.outputs.writers import Content, row_writer

if TYPE_CHECKING:
    import pandas

_SHOWN = 20
"""Rows that a notebook shows."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predicted classes of files or windows.

    Attributes:
      classes: names, in the order of the columns of `probabilities`.
      rows: a dictionary per file or window, as `meljax predict` writes it: path, start, end, time
        (if file names hold it), label, probability, label_2, …, status ('ok', 'unknown',
        'background', 'silence' or 'error'), error.
      probabilities: of all classes; NaN in rows whose status is 'silence' or 'error'.
    """

    classes: tuple[str, ...]
    rows: list[Row]
    probabilities: Float[np.ndarray, "rows classes"]

    @property
    def labels(self) -> list[str | None]:
        """The most probable class of each row; `None` if its status is not 'ok'."""
        return [row["label"] for row in self.rows]

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns the rows as a data frame, which needs pandas."""
        import pandas

        return pandas.DataFrame(self.rows)

    def to_csv(self, path: str | Path, digits: int = 4) -> None:
        """Writes the rows as `meljax predict` does, with at most `digits` decimals; 17: all.

        Raises:
          UserError: the file cannot be written.
        """
        paths = [row["path"] for row in self.rows]
        content = Content(list(self.rows[0]), paths, self.classes, band=None)
        with row_writer("csv", Path(path), content, digits) as write:
            for row in self.rows:
                write(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.labels[:5])) + (", …" if len(self.rows) > 5 else "")
        return f"<{len(self.rows)} predictions: {shown}>"

    def _repr_html_(self) -> str:
        """Returns a table for notebooks."""
        columns = [name for name in self.rows[0] if self._used(name)] if self.rows else []
        lines = [_cells("th", columns)]
        lines += [_cells("td", [row.get(name) for name in columns]) for row in self.rows[:_SHOWN]]
        rest = len(self.rows) - _SHOWN
        note = f"<p>… {rest:,} more rows</p>" if rest > 0 else ""
        return f"<table>{''.join(lines)}</table>{note}"

    def _used(self, name: str) -> bool:
        return any(row.get(name) is not None for row in self.rows)


def _cells(tag: str, values: list[Any]) -> str:
    texts = (f"{value:.4g}" if isinstance(value, float) else str(value or "") for value in values)
    return f"<tr>{''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)}</tr>"
