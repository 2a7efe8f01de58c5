"""The formats of rows, and the file names that choose them."""

import re
from pathlib import Path

from meljax.util.errors import UserError

FORMATS = ("table", "csv", "jsonl", "raven", "audacity", "parquet")

SELECTIONS = {"raven": "Raven selection tables", "audacity": "Audacity label tracks"}
"""Formats that only hold rows with a label and times, and their full names."""

DIGITS = {"csv": 4, "raven": 6, "audacity": 6}
"""Default number of decimals; the other formats keep all digits."""

ROUNDED = ("csv", "jsonl", "parquet")
"""Formats in which the number of decimals can be set."""

_SUFFIXES = {"": "table", ".txt": "table", ".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
_RAVEN_NAME = re.compile(r"(.*[._ -])?selections?(\.table)?\.txt", re.IGNORECASE)


def format_of(out: Path | None) -> str:
    """Returns the format for the name of `out`; 'table' for standard output.

    Names that end in selections.txt or selection.table.txt are for Raven.

    Raises:
      UserError: no format has this suffix.
    """
    if out and _RAVEN_NAME.fullmatch(out.name):
        return "raven"
    suffix = out.suffix.lower() if out else ""
    if suffix not in _SUFFIXES:
        raise UserError(
            f"--out {out}: unknown suffix {suffix}; use .csv, .jsonl, .parquet, .selections.txt "
            "(Raven) or .txt (a table), or give --format"
        )
    return _SUFFIXES[suffix]
