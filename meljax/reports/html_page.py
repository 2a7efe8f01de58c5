"""HTML pages: renders them from `templates/`, and writes them with their figures to a folder."""

import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from meljax.data.manifest import noun
from meljax.reports.summary import percent
from meljax.runs.directory import CONFIG, REPORT
from meljax.util.errors import UserError
from meljax.util.files import write_atomically, write_errors
from meljax.util.phrases import count

FIGURES = "figures"
"""The folder of images and recordings, next to the page."""

_GENERATOR = '<meta name="generator" content="meljax">'  # as in templates/base.html.j2
# Files of an earlier page that the new page may not have.
_REPLACED = ("mistake_*.png", "mistake_*.wav", "masks_*.png", "confusion.png", "calibration.png")


def render(template: str, **values: Any) -> str:
    """Returns a page, as HTML without external content; bytes that are not UTF-8 become '?'."""
    return _TEMPLATES.get_template(template).render(values).encode(errors="replace").decode()


def write(directory: Path, content: str, files: Iterable[tuple[str, Figure | bytes]]) -> Path:
    """Writes a page's `files` to `directory`/figures, then `report.html`; returns its path.

    The page is written last, so an existing page has all of its files.
    """
    folder = directory / FIGURES
    written = set()
    with write_errors(directory):
        folder.mkdir(parents=True, exist_ok=True)
    for name, file in files:
        with write_errors(folder / name):
            if isinstance(file, bytes):
                (folder / name).write_bytes(file)
            else:
                # Class names may be longer than the margin of the figure.
                box = "tight" if name == "confusion.png" else None
                file.savefig(folder / name, bbox_inches=box)
        written.add(name)
    write_atomically(directory / REPORT, content)
    for pattern in _REPLACED:
        for old in folder.glob(pattern):
            if old.name not in written:
                old.unlink()
    return directory / REPORT


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
