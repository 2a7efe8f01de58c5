"""Common parts of HTML pages: elements, style, and writing a page to a folder."""

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from meljax.runs.directory import CONFIG, REPORT
from meljax.util.errors import UserError
from meljax.util.files import write_atomically, write_errors

FIGURES = "figures"
"""The folder of images and recordings, next to the page."""

ABSENT = "–"
SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}

_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_GENERATOR = '<meta name="generator" content="meljax">'
# Files of an earlier page that the new page may not have.
_REPLACED = ("mistake_*.png", "mistake_*.wav", "masks_*.png", "confusion.png", "calibration.png")
# Attributes of cells: text, short key, value of any length, number.
_CELLS = {"t": "", "k": ' class="key"', "v": ' class="value"', "r": ' class="number"'}


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
    """Raises `UserError` if a page in `directory` would overwrite a run or files of others."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--out {directory} is a file; give a directory")
    if (directory / CONFIG).exists():
        raise UserError(f"--out {directory} has a {CONFIG}, like a run; use another directory")
    page = directory / REPORT
    if page.exists():
        with open(page, encoding="utf-8", errors="replace") as file:
            if _GENERATOR not in file.read(1000):
                raise UserError(f"{page} was not written by meljax; move it, or use another --out")


def document(title: str, sections: Iterable[str]) -> str:
    """Returns a whole page."""
    body = "\n".join((f"<h1>{escape(title)}</h1>", *sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{_GENERATOR}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – meljax</title>\n<style>\n{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Returns `text` escaped for HTML and attributes; bytes that are not UTF-8 become '?'."""
    return html.escape(text.encode(errors="replace").decode(), quote=True)


def link(path: Path, start: Path) -> str:
    """Returns the URL of the file `path` relative to the folder `start`."""
    relative = os.path.relpath(path.resolve(), start.resolve())
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def interval(bounds: tuple[float, float] | None) -> str:
    """Returns the bounds of a share, in brackets."""
    inside = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if bounds else "no interval without a mistake"
    return f'<span class="interval">({inside})</span>'


def share(value: float, bounds: tuple[float, float] | None) -> str:
    """Returns a share, in bold, and its interval."""
    return f"<b>{value:.1%}</b> {interval(bounds)}"


def duration(seconds: float) -> str:
    """Returns '1.5 s', '12 min' or '3 h 20 min'."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def section(title: str, *parts: str) -> str:
    """Returns a section with a heading."""
    return f"<section><h2>{title}</h2>\n" + "\n".join(parts) + "\n</section>"


def note(words: str) -> str:
    """Returns a paragraph in small print."""
    return f'<p class="note">{words}</p>'


def caution(lines: Sequence[str]) -> str:
    """Returns a box of warnings; nothing without warnings."""
    if not lines:
        return ""
    return f'<section class="caution"><h2>Warnings</h2>{listing(lines)}</section>'


def listing(items: Iterable[str]) -> str:
    """Returns a bulleted list of HTML items."""
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def table(header: Sequence[str], rows: Iterable[str | Sequence[str]], kinds: str) -> str:
    """Returns a table of HTML cells; `kinds` has a letter of `_CELLS` per column.

    A row that is a single string is a heading for the rows below it.
    """

    def line(cells: str | Sequence[str], tag: str) -> str:
        if isinstance(cells, str):
            return f'<tr class="group"><th colspan="{len(kinds)}">{cells}</th></tr>'
        parts = zip(cells, kinds, strict=True)
        filled = (f"<{tag}{_CELLS[kind]}>{cell}</{tag}>" for cell, kind in parts)
        return f"<tr>{''.join(filled)}</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if any(header) else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def code(text: str) -> str:
    """Returns text as code."""
    return f"<code>{escape(text)}</code>"


def img(file: str, alt: str) -> str:
    """Returns the image `file` of the folder `FIGURES`."""
    return f'<img src="{FIGURES}/{file}" alt="{escape(alt)}">'


def side_by_side(*parts: str) -> str:
    """Returns parts side by side, as many as fit."""
    return f'<div class="pair">{"".join(parts)}</div>'
