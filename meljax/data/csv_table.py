"""Reads a CSV that lists files with their class, group and split."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from meljax.data.manifest import (
    SPLIT_OF_NAME,
    Bad,
    Item,
    Manifest,
    check_groups,
    common_kind,
    file_manifest,
    kind_of,
)
from meljax.util.errors import UserError
from meljax.util.phrases import nearest


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    group: str = ""
    split: str = ""


def scan_csv(file: Path, label: str, group: str, training: bool) -> Manifest:
    """Returns the manifest of a CSV; see `sources.read_manifest`."""
    table = _read_table(file)
    rows = _rows(file, table, _columns(file, table[0][1], label, group))
    check_groups(str(file), {(row.label, row.group) for row in rows}, group)
    items, bad = [], []
    for row, split in zip(rows, _splits(file, rows, training), strict=True):
        path = Path(row.path).as_posix()
        if not os.path.isfile(file.parent / path):
            bad.append(Bad(path, "no such file"))
        elif not kind_of(path):
            bad.append(Bad(path, "not an image or recording"))
        else:
            items.append(Item(path, row.label, row.group, split))
    if not items:
        raise UserError(
            f"data.path: none of the {len(bad)} files of {str(file)!r} can be used "
            f"({bad[0].path!r}: {bad[0].reason}); paths are relative to {str(file.parent)!r}"
        )
    return file_manifest(file, file.parent, common_kind(file, items), items, 0, bad, training)


def _read_table(file: Path) -> list[tuple[int, list[str]]]:
    """Returns (line number, fields) of the header and every other row that is not blank."""
    with open(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            table = [
                (reader.line_num, [field.strip() for field in row])
                for row in reader
                if any(map(str.strip, row))
            ]
        except UnicodeDecodeError as error:
            raise UserError(
                f"data.path: {str(file)!r} is not UTF-8 text; save it as CSV UTF-8"
            ) from error
        except csv.Error as error:
            raise UserError(
                f"{_at(file, reader.line_num)} is not valid CSV ({error}); check its quotes"
            ) from error
    if len(table) < 2:
        raise UserError(
            f"data.path: {str(file)!r} has no rows; expected a header and one row per file"
        )
    return table


def _at(file: Path, line: int) -> str:
    return f"data.path: {str(file)!r}, line {line},"


def _columns(file: Path, header: Sequence[str], label: str, group: str) -> dict[str, int]:
    """Returns the column of each field of `_Row`; `group` and `split` may be absent."""
    used = {"path": ("data.path", "path"), "label": ("data.label", label)}
    if group and (group != "group" or group in header):
        used["group"] = ("data.group", group)
    if "split" in header:
        used["split"] = ("data.path", "split")
    for key, name in used.values():
        if header.count(name) != 1:
            problem = "more than one column" if name in header else "no column"
            raise UserError(
                f"{key}: {str(file)!r} has {problem} {name!r}{nearest(name, header)}; "
                f"its columns, separated by commas, are {', '.join(map(repr, header))}"
            )
    if group == label and group:
        raise UserError(
            f"data.group and data.label both name column {label!r}, so each class could be in one "
            "split only; name another column or set data.group=''"
        )
    return {field: header.index(name) for field, (_, name) in used.items()}


def _rows(file: Path, table: list[tuple[int, list[str]]], columns: dict[str, int]) -> list[_Row]:
    (_, header), *body = table
    rows, lines = [], {}
    for line, fields in body:
        if len(fields) != len(header):
            raise UserError(
                f"{_at(file, line)} has {len(fields)} fields but the header has {len(header)}"
            )
        row = _Row(line, **{field: fields[column] for field, column in columns.items()})
        if not row.path or not row.label:
            empty = "label" if row.path else "path"
            raise UserError(f"{_at(file, line)} has no {empty}; fill it in or delete the row")
        first = lines.setdefault(os.path.normpath(row.path), line)
        if first != line:
            raise UserError(
                f"{_at(file, line)} lists {row.path!r} again (first in line {first}); keep one"
            )
        rows.append(row)
    return rows


def _splits(file: Path, rows: Sequence[_Row], training: bool) -> list[str]:
    """Returns the split of each row; '' for training rows if no row is in val."""
    for row in rows:
        if row.split and row.split.lower() not in SPLIT_OF_NAME:
            raise UserError(
                f"{_at(file, row.line)} has the split {row.split!r}; "
                "expected train, val, test or nothing"
            )
    splits = [SPLIT_OF_NAME.get(row.split.lower(), "") for row in rows]
    if not training:
        return splits
    given = set(splits) - {"test"}
    if "" in given and len(given) > 1:
        line = rows[splits.index("")].line
        raise UserError(
            f"{_at(file, line)} has no split while others are train or val; "
            "fill in all of them or none"
        )
    if given <= {"val"}:
        raise UserError(
            f"data.path: {str(file)!r} has no rows for training; its column 'split' needs train"
        )
    return ["" if split == "train" and "val" not in given else split for split in splits]
