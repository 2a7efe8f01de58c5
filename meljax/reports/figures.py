"""The figures of the pages, drawn with matplotlib without a display or global state."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.legend import Legend
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from meljax.features.axes import ImageAxes

# All colors are from Okabe & Ito's palette, which color-blind readers can tell apart.
TRAINING = "#d55e00"
VALIDATION = "#0072b2"
BEFORE = "#e69f00"
AFTER = "#0072b2"
EVIDENCE = "#e69f00"
RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""The colors of several runs."""

Bins = tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]
"""Number of items, mean confidence and accuracy of each confidence bin."""

MARKED_EPOCHS = 30
"""Up to this many epochs, each has a dot; more dots would hide the curve."""

COUNTED_CLASSES = 30
"""Up to this many classes, a confusion matrix shows its counts."""

LABELED_CLASSES = 60
"""A confusion matrix names at most this many classes, evenly spaced if there are more."""

DPI = 110
"""Dots per inch of all figures."""


def loss_curve(
    epochs: Int[np.ndarray, " epochs"], losses: Float[np.ndarray, " epochs"], split: str
) -> Figure:
    """Draws the loss of 'training' or 'validation', in nats, over the epochs.

    The axis is logarithmic if the loss spans more than a factor of twenty. The lowest validation
    loss is marked.
    """
    color = {"training": TRAINING, "validation": VALIDATION}[split]
    figure, axes = _curve_axes(epochs, f"{split.capitalize()} loss")
    axes.plot(epochs, losses, color=color, marker=_marker(epochs), markersize=4, linewidth=1.4)
    _scale_losses(axes, losses)
    if split == "validation" and len(epochs) > 1 and np.isfinite(losses).any():
        lowest = int(np.nanargmin(losses))
        epoch, value = epochs[lowest].item(), losses[lowest].item()
        _mark(axes, epoch, value, "v", f"lowest, epoch {epoch}")
        _legend(axes)
    return figure


def score_curves(
    epochs: Int[np.ndarray, " epochs"],
    training: Float[np.ndarray, " epochs"],
    validation: Float[np.ndarray, " epochs"],
    name: str,
    best_epoch: int | None,
) -> Figure:
    """Draws a training and validation score in 0…1 over the epochs; marks the best epoch."""
    figure, axes = _curve_axes(epochs, name)
    style = {"marker": _marker(epochs), "markersize": 4, "linewidth": 1.4}
    axes.plot(epochs, training, color=TRAINING, label="training", **style)
    axes.plot(epochs, validation, color=VALIDATION, label="validation", **style)
    if best_epoch is not None and len(epochs) > 1:
        value = validation[epochs == best_epoch].item()
        _mark(axes, best_epoch, value, "*", f"best, epoch {best_epoch}")
    _scale_shares(axes)
    _legend(axes)
    return figure


class RunCurves(NamedTuple):
    """The curves of one run in a figure of several; the epoch `best` is marked on `solid`."""

    label: str
    color: str
    epochs: Int[np.ndarray, " epochs"]
    solid: Float[np.ndarray, " epochs"]
    dashed: Float[np.ndarray, " epochs"] | None = None
    best: int | None = None


def compared_curves(curves: Sequence[RunCurves], title: str, losses: bool) -> Figure:
    """Draws losses of several runs, with the axis of `loss_curve`, or scores in 0…1."""
    longest = max((curve.epochs for curve in curves), key=len)
    columns = 2 if max(len(curve.label) for curve in curves) <= 26 else 1
    figure, axes = _curve_axes(longest, title, legend_lines=-(-len(curves) // columns))
    for curve in curves:
        style = {"color": curve.color, "marker": _marker(curve.epochs), "markersize": 3.5}
        if curve.dashed is not None:
            faint = style | {"marker": None, "linestyle": (0, (4, 2)), "linewidth": 0.7}
            axes.plot(curve.epochs, curve.dashed, alpha=0.75, **faint)
        width = 1.3 if style["marker"] else 0.9
        axes.plot(curve.epochs, curve.solid, linewidth=width, label=curve.label, **style)
        if curve.best is not None:
            value = curve.solid[curve.epochs == curve.best].item()
            star = {"marker": "*", "markersize": 11, "markeredgewidth": 0.7}
            black = {"color": curve.color, "markeredgecolor": "black", "linestyle": "none"}
            axes.plot([curve.best], [value], zorder=5, clip_on=False, **star, **black)
    legend = _legend(axes, columns, loc="lower left", bbox_to_anchor=(-0.01, 1.0))
    for name in legend.get_texts():  # a run named '$x$' is not a formula
        name.set_parse_math(False)
    if losses:
        _scale_losses(axes, np.concatenate([curve.solid for curve in curves]))
    else:
        _scale_shares(axes)
    return figure


def reliability(sets: Mapping[str, Bins]) -> Figure:
    """Draws the accuracy of items by their confidence, for 'before' and 'after'."""
    figure = Figure(figsize=(4.6, 4.4), dpi=DPI)
    axes = figure.add_axes((0.15, 0.13, 0.79, 0.78))
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.9, linestyle=":")
    for name, (count, confidence, accuracy) in sets.items():
        used = count > 0
        color = {"before": BEFORE, "after": AFTER}[name]
        axes.plot(confidence[used], accuracy[used], color=color, linewidth=1, alpha=0.35)
        area = 12 + 300 * count[used] / count.sum()
        dots = {"s": area, "color": color, "edgecolors": "white", "linewidths": 0.6}
        axes.scatter(confidence[used], accuracy[used], label=name, zorder=3, clip_on=False, **dots)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    _style_axes(axes, "Calibration")
    legend = _legend(axes, bbox_to_anchor=(1.01, 1.03))  # above the dots at 100 %
    for handle in legend.legend_handles:
        handle.set_sizes([30])
    return figure


def confusion_matrix(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> Figure:
    """Draws counts, true classes in rows; a cell's color is its share of the row.

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


def image(pixels: Float[np.ndarray, "rows columns channel"]) -> Figure:
    """Draws an image in 0…1, its last row at the bottom.

    Small images are enlarged by an integer; height and width are limited to 1024 pixels.
    """
    rows, columns, channels = pixels.shape
    factor = max(1, 256 // max(rows, columns))
    height, width = min(rows * factor, 1024), min(columns * factor, 1024)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    shown = np.clip(pixels[:, :, 0] if channels == 1 else pixels, 0, 1)
    style = {"cmap": "magma", "vmin": 0, "vmax": 1, "aspect": "auto"}
    axes.imshow(shown, origin="upper", interpolation="antialiased", **style)
    return figure


def spectrogram(
    pixels: Float[np.ndarray, "rows columns channel"],
    axes: ImageAxes,
    evidence: Float[np.ndarray, "rows columns"] | None = None,
    width: float = 4.2,
) -> Figure:
    """Draws an image in 0…1 with its axes: seconds and hertz of a recording, or columns.

    `evidence`, in 0…1, is shown as in `overlay`; `width` is that of the figure in inches.
    """
    height = 0.62 * width
    figure = Figure(figsize=(width, height), dpi=DPI)
    margin = (0.66 / width, 0.42 / height, 1 - 0.78 / width, 1 - 0.5 / height)
    drawn = figure.add_axes(margin)
    rows = len(pixels)
    shown = np.clip(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels, 0, 1)
    if evidence is not None:
        shown = overlay(pixels, evidence)
    extent = (axes.left, axes.right, -0.5, rows - 0.5)
    style = {"cmap": "magma", "vmin": 0, "vmax": 1, "aspect": "auto", "extent": extent}
    drawn.imshow(shown, origin="upper", interpolation="antialiased", **style)
    drawn.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    drawn.tick_params(labelsize=8, length=2.5)
    drawn.set_xlabel("column" if axes.bands is None else "time, s", fontsize=8.5, labelpad=2)
    if axes.bands is None:
        drawn.set_yticks([])
    else:
        _name_frequencies(drawn, axes.bands, rows)
    return figure


def _name_frequencies(axes: Axes, bands: Float[np.ndarray, " bands"], rows: int) -> None:
    """Labels round frequencies, at least an eighth of the height apart; powers of ten go first."""
    chosen: dict[float, int] = {}
    for hertz in (step * 10**power for step in (1, 5, 2) for power in range(1, 6)):
        place = float(np.interp(hertz, bands, np.linspace(0, rows - 1, len(bands))))
        inside = bands[0] <= hertz <= bands[-1]
        if inside and all(abs(place - other) > rows / 8 for other in chosen):
            chosen[place] = hertz
    axes.set_yticks(list(chosen), [f"{hertz:,}" for hertz in chosen.values()])
    axes.set_ylabel("frequency, Hz", fontsize=8.5, labelpad=2)


def overlay(
    pixels: Float[np.ndarray, "rows columns channel"], evidence: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns 3"]:
    """Returns an image in gray, with more orange where `evidence`, in 0…1, is higher."""
    # Darker than white, on which orange would not show.
    gray = 0.85 * np.clip(pixels, 0, 1).mean(-1, keepdims=True).repeat(3, -1)
    share = 0.65 * evidence[:, :, None]
    return (1 - share) * gray + share * np.array(to_rgb(EVIDENCE), np.float32)


def drawable_name(classes: Sequence[str], index: int) -> str:
    """Returns a class name for figures, at most 20 characters, or '#1', … if it is not drawable."""
    name = classes[index]
    if not drawable(name):
        return f"#{index + 1}"
    return name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}"


def drawable(text: str) -> bool:
    """Returns whether the font of the figures has all characters of `text`."""
    return text.isprintable() and _characters().issuperset(map(ord, text))


@functools.cache
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FontProperties())).get_charmap())


def _curve_axes(
    epochs: Int[np.ndarray, " epochs"], title: str, legend_lines: int = 0
) -> tuple[Figure, Axes]:
    # The legend is between the title and the curves.
    height, legend = 3.6, 0.2 * legend_lines
    whole = height + legend
    figure = Figure(figsize=(5.6, whole), dpi=DPI)
    axes = figure.add_axes((0.125, 0.14 * height / whole, 0.85, 0.72 * height / whole))
    first, last = int(epochs[0]), int(epochs[-1])
    margin = max(0.5, 0.02 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("epoch")
    _style_axes(axes, title, below=72 * legend)
    return figure, axes


def _style_axes(axes: Axes, title: str, below: float = 0) -> None:
    """Adds a grid, and a title with `below` points of space under it."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=9 + below)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_shares(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _scale_losses(axes: Axes, losses: Float[np.ndarray, " n"]) -> None:
    axes.set_ylabel("cross-entropy, nats")
    finite = losses[np.isfinite(losses)]
    if finite.size and 0 < finite.min() < finite.max() / 20:
        axes.set_yscale("log")
        axes.set_ylabel("cross-entropy, nats (log scale)")
        wide = finite.max() / finite.min() > 1000
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif finite.size:
        axes.set_ylim(0, 1.08 * finite.max() or 1)


def _marker(epochs: Int[np.ndarray, " epochs"]) -> str | None:
    return "o" if len(epochs) <= MARKED_EPOCHS else None


def _mark(axes: Axes, epoch: int, value: float, marker: str, label: str) -> None:
    axes.axvline(epoch, color="#888888", linewidth=0.8, linestyle=":")
    size = 14 if marker == "*" else 9
    style = {"marker": marker, "markersize": size, "markeredgewidth": 0.8, "linestyle": "none"}
    black = {"color": VALIDATION, "markeredgecolor": "black"}
    axes.plot([epoch], [value], label=label, zorder=5, clip_on=False, **style, **black)


def _legend(
    axes: Axes,
    columns: int = 3,
    loc: str = "lower right",
    bbox_to_anchor: tuple[float, float] = (1.01, 1.0),
) -> Legend:
    """Adds a legend above the axes."""
    place = {"loc": loc, "bbox_to_anchor": bbox_to_anchor, "borderaxespad": 0.3}
    style = {"frameon": False, "fontsize": 8.5, "handlelength": 1.4, "columnspacing": 1.2}
    return axes.legend(ncols=columns, **place, **style)


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
