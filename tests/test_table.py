"""Rows as a table, CSV and JSON lines."""

import csv
import io
import json
from pathlib import Path

import pytest

from meljax.util import table
from meljax.util.errors import UserError

COLUMNS = ("path", "start", "end", "label", "probability", "error", "label_2", "probability_2")

GOOD = {
    "path": "a.wav",
    "start": 0.5,
    "end": 1.0,
    "label": "ann",
    "probability": 0.25,
    "label_2": "bob",
    "probability_2": 0.125,
}


def written(capsys, form: str, *rows: dict, columns=COLUMNS, names=("a.wav",)) -> str:
    with table.writer(form, None, columns, names) as write:
        for row in rows:
            write(row)
    return capsys.readouterr().out


def test_a_table_has_its_values_below_their_titles(capsys):
    title, row = written(capsys, "table", GOOD).splitlines()
    assert title.split() == [column for column in COLUMNS if column != "error"]
    assert row.split() == ["a.wav", "0.50", "1.00", "ann", "25.0%", "bob", "12.5%"]
    for column, value in (("path", "a.wav"), ("label ", "ann"), ("label_2", "bob")):
        assert title.index(column) == row.index(value)
    for column, value in (("start", "0.50"), ("end", "1.00"), ("probability_2", "12.5%")):
        assert title.index(column) + len(column) == row.index(value) + len(value)


def test_an_error_takes_the_place_of_the_other_columns(capsys):
    names = ("long name.wav", "a\nb.wav")
    bad = {"path": "a\nb.wav", "error": "odd\nreason"}
    lines = written(capsys, "table", bad, names=names).splitlines()
    assert lines[1] == rf"{chr(39)}a\nb.wav{chr(39)}".ljust(13) + r"  ERROR: 'odd\nreason'"


def test_a_very_long_name_does_not_widen_the_table(capsys):
    long = "x" * 100
    lines = written(capsys, "table", {"path": long, "label": "ann"}, GOOD, names=(long, "a.wav"))
    assert lines.splitlines()[0].index("start") == table.WIDEST + 5
    assert lines.splitlines()[1].startswith(f"{long}  ")


def test_a_field_with_a_line_break_is_quoted():
    for name in ("a\nb", "a\rb", 'a"b', "a,b"):
        row = table.csv_line([name, None, 1])
        assert next(csv.reader(io.StringIO(row, newline=""), strict=True)) == [name, "", "1"]
        assert row.startswith('"')
        assert row.endswith(",,1")


def test_json_lines_have_every_column(capsys):
    (line,) = written(capsys, "jsonl", GOOD).splitlines()
    assert json.loads(line) == GOOD | {"error": None}
    assert list(json.loads(line)) == list(COLUMNS)


@pytest.mark.parametrize(
    ("out", "form"),
    [
        (None, "table"),
        ("rows", "table"),
        ("rows.txt", "table"),
        ("rows.csv", "csv"),
        ("ROWS.CSV", "csv"),
        ("rows.csv.jsonl", "jsonl"),
    ],
)
def test_the_suffix_chooses_the_format(out, form):
    assert table.format_of(out and Path(out)) == form


def test_an_unknown_suffix_is_refused():
    with pytest.raises(UserError, match=r"--out rows\.xlsx: unknown suffix \.xlsx"):
        table.format_of(Path("rows.xlsx"))
