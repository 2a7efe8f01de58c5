"""CSV that comes back as it went, whatever stands in the names of files and classes."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def csv_line(values: Iterable[Any]) -> str:
    """Returns a row of CSV without its line ending; `None` is an empty field."""
    text = io.StringIO()
    # Python before 3.13 quotes only those ends of lines that the line terminator holds.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV with a header.

    Raises:
      OSError: it cannot be read.
      csv.Error: it is damaged.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
