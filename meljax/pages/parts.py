"""What pages are made of: pieces of HTML, one style, and how a page comes to lie in a folder."""

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from meljax import runs
from meljax.errors import UserError
from meljax.paths import write_whole

FIGURES = "figures"
"""The folder of the pictures and sounds, beside the page."""

ABSENT = "–"
NETWORKS = {"resnet18": "ResNet-18", "cnn": "small convolutional network"}
SIDES = {"train": "training", "val": "validation", "test": "test"}

_GENERATOR = '<meta name="generator" content="meljax">'
# What an earlier page in the same place may have left, and this one need not have.
_REPLACED = ("mistake_*.png", "mistake_*.wav", "masks_*.png", "confusion.png", "calibration.png")
# Text, a short key, a value of any length, a number.
_CELLS = {"t": "", "k": ' class="key"', "v": ' class="value"', "r": ' class="number"'}


def write(directory: Path, content: str, files: Iterable[tuple[str, Figure | bytes]]) -> Path:
    """Writes a page's `files` into `directory`/figures, then `report.html`; returns its path.

    The page comes last and whole: where it lies, its pictures lie too.
    """
    folder = directory / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for name, file in files:
        if isinstance(file, bytes):
            (folder / name).write_bytes(file)
        else:
            # Names of classes and runs may be long.
            file.savefig(folder / name, bbox_inches="tight" if name == "confusion.png" else None)
        written.add(name)
    write_whole(directory / runs.REPORT, content)
    for pattern in _REPLACED:
        for old in folder.glob(pattern):
            if old.name not in written:
                old.unlink()
    return directory / runs.REPORT


def check_place(directory: Path) -> None:
    """Raises `UserError` unless a page may be written to `directory`, which need not exist."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--out {directory} is a file; give a directory")
    if (directory / runs.CONFIG).exists():
        raise UserError(
            f"--out {directory} holds a {runs.CONFIG}, as a run does; give another directory"
        )
    page = directory / runs.REPORT
    if page.exists():
        with open(page, encoding="utf-8", errors="replace") as file:
            if _GENERATOR not in file.read(1000):
                raise UserError(f"{page} is not one of meljax's; move it, or give another --out")


def document(title: str, sections: Iterable[str]) -> str:
    """Returns a whole page."""
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{_GENERATOR}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)} – meljax</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def text(words: str) -> str:
    """Returns `words` as HTML, also of file names that are no valid Unicode."""
    return html.escape(words.encode(errors="replace").decode())


def link(path: Path, start: Path) -> str:
    """Returns the way from a page in `start` to the file `path`, as a page's link."""
    relative = os.path.relpath(path.resolve(), start.resolve())
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def interval(bounds: tuple[float, float] | None) -> str:
    """Returns the bounds of a share, in brackets."""
    inside = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if bounds else "no interval without a mistake"
    return f'<span class="interval">({inside})</span>'


def count(number: int, noun: str) -> str:
    """Returns '1 epoch', '2 epochs'."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Returns a time in the unit that fits it."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def section(title: str, *parts: str) -> str:
    """Returns a section with its heading."""
    return f"<section><h2>{title}</h2>\n" + "\n".join(parts) + "\n</section>"


def note(words: str) -> str:
    """Returns a paragraph in small print."""
    return f'<p class="note">{words}</p>'


def caution(lines: Sequence[str]) -> str:
    """Returns what must not be missed, in a box of its own; nothing if there is nothing."""
    if not lines:
        return ""
    return f'<section class="caution"><h2>Warnings</h2>{listing(lines)}</section>'


def listing(items: Iterable[str]) -> str:
    """Returns a list of HTML items."""
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def table(header: Sequence[str], rows: Iterable[str | Sequence[str]], kinds: str) -> str:
    """Returns a table of HTML cells; `kinds` has a letter per column: see `_CELLS`.

    A row that is a single string is a heading of those beneath it.
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


def img(file: str, alt: str) -> str:
    """Returns the picture `file` of the page's own folder."""
    return f'<img src="{FIGURES}/{file}" alt="{text(alt)}">'


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { max-width: 1000px; margin: 0 auto; padding: 24px 20px 64px; color: #1d2129;
  background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0.5em 0 0.4em; }
h2 { font-size: 1.35rem; margin: 2.2em 0 0.6em; padding-bottom: 0.2em;
  border-bottom: 1px solid #dfe3e8; }
h3 { font-size: 1.05rem; margin: 1.4em 0 0.4em; }
p { max-width: 46em; }
.lead { font-size: 1.12rem; }
.note, .interval, figcaption { color: #5b6470; }
.note { font-size: 0.9rem; }
.interval { white-space: nowrap; }
.caution, .guidance { background: #fff6e0; border-left: 5px solid #e69f00; border-radius: 4px;
  padding: 12px 18px; }
.caution h2 { margin: 0 0 0.3em; border: 0; padding: 0; }
.caution ul { margin: 0; padding-left: 1.2em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e9ecef; unicode-bidi: isolate; }
.group th { color: #1d2129; padding-top: 18px; }
th { color: #5b6470; font-weight: 600; white-space: nowrap; }
.key { white-space: nowrap; }
.value { min-width: 11em; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.88em;
  overflow-wrap: anywhere; unicode-bidi: isolate; }
img { max-width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr));
  gap: 20px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 24px; }
.two img { width: 100%; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; align-items: start; }
.two.wide { grid-template-columns: 1fr; }
audio { display: block; width: 100%; height: 36px; margin-top: 8px; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px;
  margin-right: 0.4em; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 0.85rem; line-height: 1.4; margin-top: 6px; overflow-wrap: anywhere; }
figcaption b { color: #1d2129; }
a { color: #0072b2; }
@media print { body { padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  img, tr, .caution { break-inside: avoid; } }
@media (max-width: 480px) { body { padding: 12px 14px 40px; } h1 { font-size: 1.6rem; }
  .lead { font-size: 1.02rem; }
  .grid { grid-template-columns: repeat(2, 1fr); gap: 14px; }
  table { font-size: 0.78rem; } th, td { padding: 4px 7px 4px 0; }
  th, .number, .interval { white-space: normal; } .value { min-width: 8.5em; } .two { gap: 4px; } }
"""
