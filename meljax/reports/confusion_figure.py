"""The confusion matrix as an image, for TensorBoard; the page of a run has a table instead."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from meljax.reports.figures import DPI, drawable_name

COUNTED_CLASSES = 30
"""Up to this many classes, the counts are written in the cells."""

LABELED_CLASSES = 60
"""At most this many classes are named; if there are more, evenly spaced ones."""


def confusion_matrix(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> Figure:
    """Draws the counts, with true classes in rows; the color of a cell is its share of the row.

    Save it with `bbox_inches='tight'`, because class names may be long.
    """
    count = len(classes)
    size = float(np.clip(0.32 * count + 1, 3.2, 8.5))
    figure = Figure(figsize=(size * 1.12, size), dpi=DPI)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    cells = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    _name_classes(axes, classes)
    if count <= COUNTED_CLASSES:
        _write_counts(axes, confusion, shares, cell_points=72 * 0.75 * size / count)
    bar = figure.colorbar(cells, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.ax.tick_params(labelsize=8)
    bar.set_label("share of the true class", fontsize=9)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def rendered(figure: Figure) -> UInt8[np.ndarray, "rows columns 3"]:
    """Returns a figure as an image in RGB, as large as its labels need."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return np.asarray(Image.open(file).convert("RGB"))


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    every = -(-len(classes) // LABELED_CLASSES)
    ticks = range(0, len(classes), every)
    names = [drawable_name(classes, i) for i in ticks]
    size = 9 if len(classes) <= 12 else 8 if len(classes) <= 30 else 6.5
    # A class named '$x$' is not a formula.
    axes.set_xticks(ticks, names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.tick_params(length=2)


def _write_counts(
    axes: Axes,
    confusion: Int[np.ndarray, "classes classes"],
    shares: Float[np.ndarray, "classes classes"],
    cell_points: float,
) -> None:
    digits = len(str(confusion.max()))
    size = float(np.clip(cell_points / (0.75 * digits), 4, 11))
    for row, column in np.argwhere(confusion):
        color = "white" if shares[row, column] > 0.5 else "#222222"
        text = str(confusion[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
