"""Raven selection tables.

A table of several recordings has the columns of Raven Pro and BirdNET-Analyzer. Raven opens the
recordings in Begin Path one after the other, so begin and end count from the start of the first
recording; File Offset is the time in the recording itself.
"""

import os
from collections.abc import Callable

from meljax.evaluation.status import OK
from meljax.outputs.rows import Row
from meljax.outputs.text_file import in_one_field

COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)"),
    *("High Freq (Hz)", "Begin Path", "File Offset (s)", "Begin File", "Annotation", "Score"),
)


def line_of(band: tuple[float, float]) -> Callable[[Row], str | None]:
    """Returns a function that formats a row as a selection; `None` for rows without a label.

    `band`: lowest and highest frequency of the selections, in Hz. The function must be called with
    all rows of a table, in order.
    """
    begin: dict[str, float] = {}  # of each recording, from the start of the first one
    total, number = 0.0, 0

    def line(row: Row) -> str | None:
        nonlocal total, number
        if row["status"] != OK:
            return None
        path = row["path"]
        if path not in begin:
            begin[path], total = total, total + row["duration"]
        number += 1
        times = (_seconds(begin[path] + row["start"]), _seconds(begin[path] + row["end"]))
        return "\t".join(
            [
                *(str(number), "Spectrogram 1", "1", *times, *(f"{each:.1f}" for each in band)),
                in_one_field(os.path.abspath(path)),
                _seconds(row["start"]),
                in_one_field(os.path.basename(path)),
                in_one_field(row["label"]),
                str(row["probability"]),
            ]
        )

    return line


def _seconds(value: float) -> str:
    return f"{value:.6f}"
