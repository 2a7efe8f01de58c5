"""Rows as a Parquet file, written with pyarrow from the extra `parquet`."""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from meljax.outputs.rows import Row
from meljax.util.errors import UserError
from meljax.util.files import write_errors

_ROWS = 10_000
"""Rows per row group; a group is written at once."""


@contextlib.contextmanager
def parquet_writer(out: Path, columns: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """Yields a function that adds a row to the file `out`.

    The file is completed when the block ends, even by an error or an interrupt.

    Raises:
      UserError: pyarrow is not installed, or `out` cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet needs the extra: pip install '.[parquet]'") from None

    def kind(column: str) -> pa.DataType:
        if column == "time":
            return pa.timestamp("ms")
        numeric = column in ("start", "end") or column.startswith("probability")
        return pa.float64() if numeric else pa.string()

    schema = pa.schema([(column, kind(column)) for column in columns])
    rows: list[Row] = []
    with write_errors(out, "--out"):
        writer = parquet.ParquetWriter(out, schema)

    def flush() -> None:
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

    def write(row: Row) -> None:
        rows.append({column: _value(column, row.get(column)) for column in columns})
        if len(rows) == _ROWS:
            with write_errors(out, "--out"):
                flush()

    try:
        yield write
    finally:
        with write_errors(out, "--out"):
            try:
                flush()
            finally:
                writer.close()


def _value(column: str, value: str | float | None) -> str | float | datetime.datetime | None:
    if column == "time" and value is not None:
        return datetime.datetime.fromisoformat(value)
    if isinstance(value, str):  # file names may not be valid UTF-8
        return value.encode("utf-8", "backslashreplace").decode()
    return value
