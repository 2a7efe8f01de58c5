"""Rows of predictions in all formats."""

import csv
import io
import json
import os
import pty
import re
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from tqdm.utils import disp_len

from meljax.evaluation.spans import Span
from meljax.outputs import audacity
from meljax.outputs.formats import format_of
from meljax.outputs.rows import columns, rounded, row_of
from meljax.outputs.summary import Summary
from meljax.outputs.terminal_table import WIDEST_PATH, TerminalTable, terminal_width
from meljax.outputs.writers import Content, check_format, row_writer
from meljax.util.csv_file import csv_line, read_csv
from meljax.util.errors import UserError

CLASSES = ("ann", "bob", "cy")
LONG = "x" * 100


def span(path="a.wav", start=0.5, end=1.0, probabilities=(0.25, 0.625, 0.125), **given) -> Span:
    probabilities = None if probabilities is None else np.array(probabilities)
    return Span(path, given.pop("status", "ok"), start, end, probabilities, duration=10.0, **given)


BAD = Span("a\nb.wav", "error", error="odd\nreason")
SILENT = span(start=1.0, end=2.0, probabilities=None, status="silence")
UNKNOWN = span(status="unknown")


def content(*paths, top=2, timed=False) -> Content:
    return Content(columns(top, timed), paths or ("a.wav",), CLASSES, (50.0, 8000.0))


def written(form, out, *spans, top=2, times=(), digits=None) -> str:
    """Writes spans to `out`; returns its text."""
    times = dict(times)
    paths = [each.path for each in spans]
    with row_writer(form, out, content(*paths, top=top, timed=bool(times)), digits) as write:
        for each in spans:
            write(row_of(each, CLASSES, top, times.get(each.path)))
    return out.read_bytes().decode() if out and out.is_file() and form != "parquet" else ""


def test_columns_are_in_this_order():
    fixed = ["path", "start", "end", "label", "probability"]
    assert columns(1, False) == [*fixed, "status", "error"]
    assert columns(2, False) == [*fixed, "label_2", "probability_2", "status", "error"]
    assert columns(1, True)[:4] == ["path", "start", "end", "time"]


def test_an_unknown_row_keeps_its_probability_and_the_second_class():
    row = row_of(UNKNOWN, CLASSES, 2)
    assert (row["status"], row["label"], row["probability"]) == ("unknown", None, 0.625)
    assert (row["label_2"], row["probability_2"]) == ("ann", 0.25)


def test_a_row_has_the_time_of_its_start():
    recorded = datetime(2024, 5, 17, 23, 59, 59)
    assert row_of(span(start=1.2345), CLASSES, 1, recorded)["time"] == "2024-05-18T00:00:00.234"
    assert row_of(BAD, CLASSES, 1, recorded)["time"] == "2024-05-17T23:59:59.000"


def test_csv_opens_in_a_spreadsheet(tmp_path):
    one, other = span("é.wav", 0.123456789), span("a\nb.wav", probabilities=(0.1, 0.2, 1e-7))
    text = written("csv", tmp_path / "r.csv", one, other, SILENT, BAD)
    assert text.startswith("\ufeffpath,start,end,label,")
    table = read_csv(tmp_path / "r.csv")
    assert table[0]["path"] == "é.wav"
    assert (table[0]["start"], table[0]["probability"]) == ("0.1235", "0.625")
    assert [row["path"] for row in table] == ["é.wav", "a\nb.wav", "a.wav", "a\nb.wav"]
    assert [row["status"] for row in table] == ["ok", "ok", "silence", "error"]
    assert table[2]["label"] == ""


def test_all_digits_give_the_same_numbers(tmp_path):
    values = (1 / 3, 0.1 + 0.2, 1e-17)
    file = tmp_path / "r.csv"
    written("csv", file, span(start=2 / 3, probabilities=values), digits=17, top=3)
    (row,) = read_csv(file)
    assert float(row["start"]) == 2 / 3
    assert {float(row[f"probability{k}"]) for k in ("", "_2", "_3")} == set(values)
    written("csv", file, span(probabilities=values), digits=1)
    assert read_csv(file)[0]["probability"] == "0.3"


def test_csv_on_standard_output_has_no_byte_order_mark(capsys):
    written("csv", None, span())
    assert capsys.readouterr().out.startswith("path,")


@pytest.mark.parametrize("form", ["csv", "jsonl", "raven", "table"])
def test_every_row_is_flushed(form, tmp_path):
    out = tmp_path / "rows"
    with row_writer(form, out, content()) as write:
        write(row_of(span(), CLASSES, 1))
        assert "bob" in out.read_text()


def test_json_lines_have_every_column_and_all_digits(tmp_path):
    (line,) = written("jsonl", tmp_path / "r", span(start=1 / 3)).splitlines()
    row = json.loads(line)
    assert list(row) == columns(2, False)
    assert (row["start"], row["error"]) == (1 / 3, None)
    assert (
        json.loads(written("jsonl", tmp_path / "r", span(start=1 / 3), digits=2))["start"] == 0.33
    )


def test_a_field_with_a_line_break_is_quoted():
    for name in ("a\nb", "a\rb", 'a"b', "a,b"):
        row = csv_line([name, None, 1])
        assert next(csv.reader(io.StringIO(row, newline=""), strict=True)) == [name, "", "1"]
        assert row.startswith('"')
        assert row.endswith(",,1")


def test_a_raven_table_counts_from_the_start_of_the_first_recording(tmp_path):
    """As Raven opens the recordings that have selections, one after the other."""
    spans = [span(), SILENT, BAD, UNKNOWN, span(start=2.0, end=3.5), span("e.wav")]
    spans.insert(5, Span("c.wav", "silence", 0.0, 5.0, duration=5.0))
    spans.append(span("d\t.wav", 1.0, 2.0))
    text = written("raven", tmp_path / "r.selections.txt", *spans)
    header, *rows = (line.split("\t") for line in text.splitlines())
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["Selection"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["Begin Time (s)"]) for row in rows] == [0.5, 2.0, 10.5, 21.0]
    assert [float(row["End Time (s)"]) for row in rows] == [1.0, 3.5, 11.0, 22.0]
    assert [float(row["File Offset (s)"]) for row in rows] == [0.5, 2.0, 0.5, 1.0]
    assert [row["Begin Path"] for row in rows[1:3]] == [
        os.path.abspath(p) for p in ("a.wav", "e.wav")
    ]
    assert rows[0]["Begin File"] == "a.wav"
    assert (rows[0]["Low Freq (Hz)"], rows[0]["High Freq (Hz)"]) == ("50.0", "8000.0")
    assert (rows[0]["Annotation"], rows[0]["Score"]) == ("bob", "0.625")


def test_a_label_track_has_start_end_and_label(tmp_path):
    out = tmp_path / "track.txt"
    assert written("audacity", out, span(), SILENT, UNKNOWN) == "0.500000\t1.000000\tbob\n"


def test_label_tracks_of_several_recordings_are_files_in_a_folder(tmp_path):
    names = ["in/x/a.wav", "in/y/a.wav", "in/y/b.wav", "in/y/B.flac"]
    spans = [span(names[0]), span(names[1]), span(names[1], 2.0, 3.0)]
    spans += [Span(names[2], "silence", 0.0, 1.0, duration=1.0), Span(names[3], "error", error="x")]
    written("audacity", tmp_path / "out", *spans)
    found = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*.txt")}
    assert found == {
        "out/x/a.txt": "0.500000\t1.000000\tbob\n",
        "out/y/a.txt": "0.500000\t1.000000\tbob\n2.000000\t3.000000\tbob\n",
        "out/y/b.wav.txt": "",
    }
    assert audacity.track_names(["a.wav", "a.wav"]) == {"a.wav": "a.txt"}


@pytest.mark.parametrize("out", [None, "tracks.txt"])
def test_one_label_track_does_not_hold_several_recordings(out):
    with pytest.raises(UserError, match=r"belongs to one recording, and these are 2.*a folder"):
        check_format("audacity", out and Path(out), content("a.wav", "b.wav"))
    check_format("audacity", out and Path(out), content("a.wav", "a.wav"))


def test_a_label_track_is_not_written_to_a_file_that_is_no_track(tmp_path):
    (tmp_path / "tracks").touch()
    with pytest.raises(UserError, match="is a file"):
        check_format("audacity", tmp_path / "tracks", content("a.wav", "b.wav"))


def test_no_two_recordings_share_a_label_track():
    names = audacity.track_names(["c/a.wav", "c/a.flac", "c/a.wav.wav", "c/B.wav", "c/b.flac"])
    assert len({name.lower() for name in names.values()}) == 5
    assert names["c/a.flac"] == "a.flac.txt"
    assert audacity.track_names(["x/a.wav", os.path.abspath("x/y/b.wav")])["x/a.wav"] == "a.txt"


def test_durations_are_never_rounded():
    assert rounded({"duration": 1.23456789, "start": 1.26}, 1) == {
        "duration": 1.23456789,
        "start": 1.3,
    }


def test_parquet_has_types_and_all_digits(tmp_path):
    out = tmp_path / "r.parquet"
    times = {"a.wav": datetime(2024, 5, 17, 4, 30)}
    spans = [span(start=1 / 3), SILENT, Span("caf\udce9.wav", "error", error="bad")]
    written("parquet", out, *spans, times=times)
    table = parquet.read_table(out)
    assert table.column_names == columns(2, True)
    rows = table.to_pylist()
    assert rows[0]["start"] == 1 / 3
    assert rows[0]["time"] == datetime(2024, 5, 17, 4, 30, 0, 333000)
    assert rows[1]["label"] is None
    assert (rows[2]["path"], rows[2]["start"]) == ("caf\\udce9.wav", None)


def test_an_interrupted_parquet_file_has_the_rows_before(tmp_path, monkeypatch):
    monkeypatch.setattr("meljax.outputs.parquet._ROWS", 4)
    out = tmp_path / "r.parquet"

    def interrupted():
        with row_writer("parquet", out, content()) as write:
            for number in range(10):
                write(row_of(span(start=number / 10), CLASSES, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert parquet.ParquetFile(out).num_row_groups == 3
    assert parquet.read_table(out)["start"].to_pylist() == [number / 10 for number in range(10)]


def test_a_missing_parquet_extra_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs the extra: pip install '\.\[parquet\]'"):
        written("parquet", tmp_path / "r.parquet", span())


def test_an_unwritable_parquet_file_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"--out .*cannot be written"):
        written("parquet", tmp_path / "no" / "r.parquet", span())
    with pytest.raises(UserError, match="name a file with --out"):
        check_format("parquet", None, content())


@pytest.mark.parametrize(
    ("out", "form"),
    [
        (None, "table"),
        ("rows", "table"),
        ("rows.txt", "table"),
        ("rows.csv", "csv"),
        ("ROWS.CSV", "csv"),
        ("rows.csv.jsonl", "jsonl"),
        ("rows.parquet", "parquet"),
        ("selections.txt", "raven"),
        ("a.Table.1.selections.txt", "raven"),
        ("a.BirdNET.selection.table.txt", "raven"),
        ("my_selection.txt", "raven"),
        ("preselections.txt", "table"),
    ],
)
def test_the_name_chooses_the_format(out, form):
    assert format_of(out and Path(out)) == form


def test_an_unknown_suffix_is_refused():
    with pytest.raises(UserError, match=r"--out rows\.xlsx: unknown suffix \.xlsx"):
        format_of(Path("rows.xlsx"))


def test_a_table_has_its_values_below_their_titles(tmp_path):
    title, row = written("table", tmp_path / "r", span()).splitlines()
    assert title.split() == columns(2, False)[:-2]
    assert row.split() == ["a.wav", "0.50", "1.00", "bob", "62.5%", "ann", "25.0%"]
    for column, value in (("path", "a.wav"), ("label ", "bob"), ("label_2", "ann")):
        assert title.index(column) == row.index(value)
    for column, value in (("start", "0.50"), ("end", "1.00"), ("probability_2", "25.0%")):
        assert title.index(column) + len(column) == row.index(value) + len(value)


def test_an_error_takes_the_place_of_the_other_columns(tmp_path):
    lines = written("table", tmp_path / "r", Span("long name.wav", "silence"), BAD).splitlines()
    assert "(silence)" in lines[1]
    assert lines[2] == rf"{chr(39)}a\nb.wav{chr(39)}".ljust(13) + r"  ERROR: 'odd\nreason'"


def test_a_very_long_name_does_not_widen_a_table_in_a_file(tmp_path):
    lines = written("table", tmp_path / "r", span(LONG), span()).splitlines()
    assert lines[0].index("start") == WIDEST_PATH + 5
    assert lines[1].startswith(f"{LONG}  ")


@pytest.mark.parametrize("terminal", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("top", [1, 2, 3])
def test_a_table_fits_the_terminal(terminal, top):
    paths = ("survey/site 1/recorder/24F31902_20240517_043000.WAV", "b.wav")
    classes = ("Phylloscopus trochiloides", "b", "鳴き声" * 9)
    form = TerminalTable(columns(top, True), paths, classes, terminal)
    recorded = datetime(2024, 5, 17, 4, 30)
    rows = [row_of(span(path), classes, top, recorded) for path in paths]
    lines = [form.header, *map(form.line, rows), form.line(row_of(SILENT, classes, top))]
    assert all(disp_len(line) <= terminal for line in lines)
    assert "7_043000.WAV" in lines[1]
    assert {"path", "label", "probability"} <= form.widths.keys()
    assert set(form.widths) | set(form.left_out) == set(columns(top, True)) - {"status", "error"}
    assert bool(form.left_out) == (terminal < 80 + 26 * (top - 1))
    if top == 1:
        assert lines[1].startswith("…") == (terminal < 200)


def test_only_a_table_on_a_terminal_has_its_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "57")
    assert terminal_width() is None
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert terminal_width() == 57
        monkeypatch.undo()


def counted(*rows, timed=True) -> list[dict]:
    summary = Summary(timed)
    for each, recorded in rows:
        summary.add(row_of(each, CLASSES, 1, recorded))
    return list(csv.DictReader(io.StringIO(summary.csv())))


def test_a_summary_counts_rows_per_hour_and_class():
    evening = datetime(2024, 5, 17, 23, 59, 59)
    table = counted(
        (span(start=0.0, end=1.0), evening),
        (span(start=0.5, end=1.5), evening),
        (span(start=1.5, end=2.5, probabilities=(1.0, 0.0, 0.0)), evening),
        (span(start=2.0, end=3.0), evening),
        (span("b.wav", 0.0, 2.0), evening),
        (SILENT, evening),
        (BAD, None),
    )
    keys = ("date", "hour", "status", "label", "rows", "seconds", "files")
    assert [tuple(row[key] for key in keys) for row in table] == [
        ("", "", "error", "", "1", "", "1"),
        ("2024-05-17", "23", "ok", "bob", "3", "3.5", "2"),  # overlapping windows count once
        ("2024-05-18", "00", "ok", "ann", "1", "1.0", "1"),
        ("2024-05-18", "00", "ok", "bob", "1", "1.0", "1"),
        ("2024-05-18", "00", "silence", "", "1", "1.0", "1"),
    ]


def test_a_summary_without_times_counts_rows_per_file_and_class():
    table = counted((span(), None), (UNKNOWN, None), (span("b.wav"), None), timed=False)
    found = [(row["path"], row["status"], row["label"], row["rows"]) for row in table]
    assert found == [
        ("a.wav", "ok", "bob", "1"),
        ("a.wav", "unknown", "", "1"),
        ("b.wav", "ok", "bob", "1"),
    ]
    assert not re.search("date|hour", ",".join(table[0]))
