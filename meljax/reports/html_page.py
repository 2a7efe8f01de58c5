"""HTML pages: renders them from `templates/`, and writes them with their images and recordings."""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from meljax.data.manifest import noun
from meljax.reports.media import data_url, png
from meljax.reports.summary import percent
from meljax.runs.directory import CONFIG, REPORT
from meljax.util.errors import UserError
from meljax.util.files import write_atomically, write_errors
from meljax.util.phrases import count

FIGURES = "figures"
"""The folder beside the page for images and recordings that are not in the page itself."""

INLINED_BYTES = 12_000_000
"""Maximum size of the images and recordings in the page itself. In base64 they make a page of 16 MB
and an email of 22 MB; mail servers commonly accept 25 MB."""

_GENERATOR = '<meta name="generator" content="meljax">'  # as in templates/base.html.j2
# Files of an earlier page that the new page does not need.
_REPLACED = ("mistake_*.png", "mistake_*.wav", "masks_*.png", "accuracy.png", "f1.png", "rate.png")
_REPLACED += ("loss.png", "training_loss.png", "validation_loss.png")
_REPLACED += ("confusion.png", "calibration.png", "coverage.png")


class Files(NamedTuple):
    """URLs of the images and recordings of a page, by name; `apart`: they are in `FIGURES`."""

    urls: Mapping[str, str]
    apart: bool


def render(template: str, **values: Any) -> str:
    """Returns a page, as HTML without external content; bytes that are not UTF-8 become '?'."""
    return _TEMPLATES.get_template(template).render(values).encode(errors="replace").decode()


def write(
    directory: Path,
    page: Callable[[Files], str],
    files: Iterable[tuple[str, Figure | bytes]],
) -> Path:
    """Writes `report.html`, with its `files` in it, to `directory`; returns its path.

    If the `files` have more than `INLINED_BYTES`, they are written to the folder `FIGURES`. The
    page is written last, so an existing page has all of its files.
    """
    with write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    placed = _place(directory / FIGURES, files)
    write_atomically(directory / REPORT, page(placed))
    _remove_others(directory / FIGURES, placed)
    return directory / REPORT


def _place(folder: Path, files: Iterable[tuple[str, Figure | bytes]]) -> Files:
    """Returns the URLs of the files of a page; writes them to `folder` if they are too large."""
    held, total, names = [], 0, []
    for name, file in files:
        content = file if isinstance(file, bytes) else png(file)
        held.append((name, content))
        names.append(name)
        total += len(content)
        if total > INLINED_BYTES:
            _write_files(folder, held)
            held = []
    if total > INLINED_BYTES:
        return Files({name: f"{FIGURES}/{name}" for name in names}, apart=True)
    return Files({name: data_url(name, content) for name, content in held}, apart=False)


def _write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with write_errors(folder):
        folder.mkdir(exist_ok=True)
    for name, content in files:
        with write_errors(folder / name):
            (folder / name).write_bytes(content)


def _remove_others(folder: Path, placed: Files) -> None:
    """Removes files of an earlier page that this page does not need, and the folder if empty."""
    needed = placed.urls if placed.apart else {}
    for pattern in _REPLACED:
        for old in folder.glob(pattern):
            if old.name not in needed:
                old.unlink()
    with contextlib.suppress(OSError):  # there is none, or it has other files
        folder.rmdir()


def check_place(directory: Path) -> None:
    """Raises `UserError` if `directory` is a file or a run, or has a page of another program."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--out {directory} is a file; give a directory")
    if (directory / CONFIG).exists():
        raise UserError(f"--out {directory} has a {CONFIG}, like a run; use another directory")
    page = directory / REPORT
    if page.exists():
        with open(page, encoding="utf-8", errors="replace") as file:
            if _GENERATOR not in file.read(1000):
                raise UserError(f"{page} was not written by meljax; move it, or use another --out")


def link(path: Path, start: Path) -> str:
    """Returns the URL of the file `path` relative to the folder `start`."""
    relative = os.path.relpath(path.resolve(), start.resolve())
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def number(value: float | int, digits: str = ",") -> str:
    """Returns a number in the format `digits`, by default '1,234'."""
    return format(value, digits)


def duration(seconds: float | int) -> str:
    """Returns '1.5 s', '12 min' or '3 h 20 min'."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.globals["FIGURES"] = FIGURES
_TEMPLATES.filters |= {
    "percent": percent,
    "number": number,
    "duration": duration,
    "median": statistics.median,
    "count_of": count,
    "noun": noun,
    "repr": repr,
}
