"""Reads a CSV, TSV, JSONL or JSON file as a header and rows of text."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meljax.util.errors import UserError
from meljax.util.files import decode_text

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", *JSON_SUFFIXES)
"""Lower-case suffixes of tables."""

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SEP_LINE = re.compile(r'"?sep=(\\t|\t|[^\s"])"?[ ,;\t]*(\r\n|\r|\n|$)', re.IGNORECASE)
_SAMPLE = 65_536
"""Number of characters at the start of a file that show its delimiter."""


@dataclass(frozen=True)
class Table:
    """A header and the rows that are not blank; all cells are text without outer spaces."""

    file: Path
    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]  # (line number, cells)
    delimiter: str = ""  # '' if it is JSON
    unit: str = "line"  # what the numbers of the rows count

    def at(self, number: int) -> str:
        """Returns the start of a message about a row."""
        return f"data.path: {str(self.file)!r}, {self.unit} {number},"

    @property
    def separators(self) -> str:
        """The plural name of the delimiter; '' if it is the usual one."""
        usual = "\t" if self.file.suffix.lower() in (".tsv", ".tab", ".txt") else ","
        return "" if self.delimiter == usual else _DELIMITERS.get(self.delimiter, self.delimiter)


def read_table(file: Path) -> Table:
    """Returns the table in a file, perhaps without rows.

    Raises:
      UserError: the file is not a table in UTF-8 (or UTF-16 with a byte order mark).
    """
    text = read_text(file)
    if file.suffix.lower() in JSON_SUFFIXES:
        return _read_json(file, text)
    (text, skipped), delimiter = _without_comments(text), ""
    if line := _SEP_LINE.match(text):
        text, skipped = text[line.end() :], skipped + 1
        delimiter = line[1].replace("\\t", "\t")
    delimiter = delimiter or _detect_delimiter(text, file.suffix.lower())
    try:
        return _read_delimited(file, text, delimiter, csv.QUOTE_MINIMAL, skipped)
    except UserError:
        if delimiter != "\t":
            raise
    return _read_delimited(file, text, delimiter, csv.QUOTE_NONE, skipped)  # quotes are only text


def _without_comments(text: str) -> tuple[str, int]:
    """Returns a text without the comments at its start ('#'), and the number of their lines."""
    skipped = 0
    while text.startswith("#") and "\n" in text:
        text, skipped = text.partition("\n")[2], skipped + 1
    return text, skipped


def read_text(file: Path) -> str:
    """Returns the text of a file; raises `UserError` if its encoding is another one."""
    try:
        text = decode_text(file.read_bytes())
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"data.path: {str(file)!r} is not UTF-8 text; save it as CSV UTF-8")
    return text


def _detect_delimiter(text: str, suffix: str) -> str:
    """Returns the delimiter that gives the most rows as many fields as the header has."""
    lines = text[:_SAMPLE].splitlines(keepends=True)[:20]
    delimiters = sorted(_DELIMITERS, key=lambda each: (each == "\t") == (suffix == ".csv"))

    def fit(delimiter: str) -> tuple[bool, int, int]:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        header, *rows = [row for row in reader if any(map(str.strip, row))] or [[]]
        return len(header) > 1, sum(_has_fields_of(row, header) for row in rows), len(header)

    return max(delimiters, key=fit)


def _has_fields_of(row: Sequence[str], header: Sequence[str]) -> bool:
    """Tells whether a row has the fields of the header, but for empty ones at the end."""
    return not any(row[len(header) :]) and not any(header[len(row) :])


def _read_delimited(file: Path, text: str, delimiter: str, quoting: int, skipped: int) -> Table:
    """Returns a table with a delimiter; `skipped` is the number of lines before `text`."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=quoting,
        skipinitialspace=True,
        strict=True,
    )
    lines = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                lines.append((reader.line_num + skipped, cells))
    except csv.Error as error:
        at = Table(file, (), ()).at(reader.line_num + skipped)
        raise UserError(f"{at} is not valid CSV ({error}); check its quotes") from error
    (_, header), *rows = lines or [(0, [])]
    table = Table(file, header, rows, delimiter)
    for line, cells in rows:
        if len(cells) != len(header) and not _has_fields_of(cells, header):
            raise UserError(
                f"{table.at(line)} has {len(cells)} fields but the header has {len(header)}"
            )
    return table


def _read_json(file: Path, text: str) -> Table:
    """Returns a table of one JSON object per line, or of a JSON list of objects."""
    # Numbers stay as they are written: 1 is '1' and 1.0 is '1.0'.
    decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
    whole = text.lstrip().startswith("[")
    table = Table(file, (), (), unit="entry" if whole else "line")
    number, entries = 1, []
    try:
        if whole:
            entries = list(enumerate(decode(text), 1))
        else:
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    entries.append((number, decode(line)))
    except (ValueError, RecursionError) as error:
        number = getattr(error, "lineno", 1) if whole else number
        raise UserError(
            f"data.path: {str(file)!r}, line {number}, is not valid JSON ({error}); "
            "expected one object per line, or a list of objects"
        ) from error
    for number, entry in entries:
        if not isinstance(entry, dict):
            raise UserError(f"{table.at(number)} is not a JSON object with a value per column")
    values = [value for _, entry in entries for value in entry.values()]
    if len(entries) == 1 and len(values) > 1 and all(isinstance(v, dict | list) for v in values):
        raise UserError(
            f"data.path: {str(file)!r} is one JSON object with the values of each column; write "
            "one object per row, as pandas does with orient='records'"
        )
    header = list(dict.fromkeys(key for _, entry in entries for key in entry))
    rows = [(number, [_cell(entry.get(key)) for key in header]) for number, entry in entries]
    for number, cells in rows:
        try:
            "".join(cells).encode()
        except UnicodeEncodeError:  # half of an escaped pair
            raise UserError(f"{table.at(number)} has text that is not valid Unicode") from None
    return Table(file, header, rows, unit=table.unit)


def _cell(value: object) -> str:
    """Returns a JSON value as text; a list of one value is that value."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value == []:
        return ""
    if isinstance(value, list) and len(value) == 1:
        return _cell(value[0])
    return json.dumps(value, ensure_ascii=False)
