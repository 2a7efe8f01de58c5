"""Lines of CSV files."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def csv_line(values: Iterable[Any]) -> str:
    """Returns a row of CSV without its line ending; `None` is an empty field."""
    text = io.StringIO()
    # Python before 3.13 quotes only line endings that occur in the line terminator.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV with a header; raises `OSError` or `csv.Error`."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
