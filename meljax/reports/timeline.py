"""The figure of a long recording: the most probable class of each window over time."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from meljax.evaluation.spans import Span
from meljax.evaluation.status import SILENCE
from meljax.reports.figures import DPI, RUNS, drawable_name

COLORS = RUNS[:6]
"""Colors of the classes with the most windows."""
OTHERS = "#777777"
QUIET = "#e4e7eb"

COLUMNS = 4
"""Number of columns of the legend."""

LONG = 120
"""In recordings longer than this, in seconds, times are shown in minutes and hours."""


def timeline(
    windows: Sequence[Span], classes: Sequence[str], threshold: float, audio: bool
) -> Figure:
    """Draws a bar per window, as high as the probability of the most probable class.

    Bars below `threshold` are pale; silent windows are gray over the whole height. `windows` are
    ordered by start, which is in seconds of a recording (`audio`) or columns of an image.
    """
    tops = [None if w.status == SILENCE else int(w.probabilities.argmax()) for w in windows]
    handles, color = _legend(tops, classes)
    rows = -(-len(handles) // COLUMNS)
    height = 2.1 + 0.22 * rows
    figure = Figure(figsize=(7, height), dpi=DPI)
    axes = figure.add_axes((0.075, 0.47 / height, 0.905, 1.5 / height))
    corners, shades = [], []
    edges = bar_edges(windows)
    for window, top, left, right in zip(windows, tops, edges, edges[1:], strict=False):
        high = 1.0 if top is None else float(window.probabilities[top])
        corners.append([(left, 0), (left, high), (right, high), (right, 0)])
        shade = QUIET if top is None else color.get(top, OTHERS)
        shades.append(to_rgba(shade, 1 if high >= threshold else 0.3))
    axes.add_collection(
        PolyCollection(corners, facecolors=shades, linewidths=0, antialiaseds=False)
    )
    axes.axhline(threshold, color="#222222", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xlim(edges[0], edges[-1])
    _style(axes, audio)
    place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0), "ncols": COLUMNS}
    legend = axes.legend(handles=handles, frameon=False, fontsize=8.5, handlelength=1.2, **place)
    for name in legend.get_texts():  # a class named '$x$' is not a formula
        name.set_parse_math(False)
    return figure


def _legend(
    tops: Sequence[int | None], classes: Sequence[str]
) -> tuple[list[Patch], dict[int, str]]:
    """Returns the entries of the legend, and the colors of the most frequent classes."""
    frequent = [top for top, _ in Counter(top for top in tops if top is not None).most_common()]
    color = dict(zip(frequent, COLORS, strict=False))
    entries = [(color[top], drawable_name(classes, top)) for top in color]
    if len(frequent) > len(COLORS):
        entries.append((OTHERS, "other classes"))
    if None in tops:
        entries.append((QUIET, "silence"))
    return [Patch(color=shade, label=name) for shade, name in entries], color


def bar_edges(windows: Sequence[Span]) -> Float[np.ndarray, " edges"]:
    """Returns the edges of the bars of overlapping windows, halfway between their middles."""
    middles = np.array([(window.start + window.end) / 2 for window in windows])
    between = (middles[1:] + middles[:-1]) / 2
    return np.array([windows[0].start, *between, windows[-1].end], dtype=float)


def place(value: float | int, end: float | int) -> str:
    """Returns the text for a position in an item that ends at `end`: column '12', second '12.50'.

    In a recording longer than `LONG`, seconds become '1:05.25' or '1:00:05.25'.
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if end <= LONG else clock(value, 2)


def clock(seconds: float, digits: int = 0) -> str:
    """Returns '1:05' or '1:00:05', with `digits` decimals."""
    seconds = round(seconds, digits)
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{rest:0{digits + 3 if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _style(axes: Axes, audio: bool) -> None:
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    end = axes.get_xlim()[1]
    steps, unit = [1, 2, 5, 10], "time, s" if audio else "column"
    if audio and end > LONG:
        steps, unit = [1, 1.5, 3, 6, 10], "time, min:s" if end < 3600 else "time, h:min:s"
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=steps))
    axes.set_xlabel(unit, fontsize=8.5, labelpad=2)
    axes.tick_params(labelsize=8, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
