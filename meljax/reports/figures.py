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
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from meljax.features.axes import ImageAxes

# All colors are from Okabe & Ito's palette, which color-blind readers can tell apart.
TRAINING = "#d55e00"
VALIDATION = "#0072b2"
BEFORE = "#e69f00"
AFTER = "#0072b2"
EVIDENCE = "#e69f00"
RATE = "#009e73"
RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""The colors of several runs."""

Bins = tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]
"""Number of items, mean confidence and accuracy of each confidence bin."""

MARKED_EPOCHS = 30
"""Up to this many epochs, each has a dot; more dots would hide the curve."""

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


def loss_curves(
    epochs: Int[np.ndarray, " epochs"],
    training: Float[np.ndarray, " epochs"],
    validation: Float[np.ndarray, " epochs"],
) -> Figure:
    """Draws both losses on one axis, scaled as in `loss_curve`."""
    figure, axes = _curve_axes(epochs, "Loss")
    style = {"marker": _marker(epochs), "markersize": 4, "linewidth": 1.4}
    axes.plot(epochs, training, color=TRAINING, label="training", **style)
    axes.plot(epochs, validation, color=VALIDATION, label="validation", **style)
    _scale_losses(axes, np.concatenate([training, validation]))
    _legend(axes)
    return figure


def rate_curve(epochs: Int[np.ndarray, " epochs"], rates: Float[np.ndarray, " epochs"]) -> Figure:
    """Draws the learning rate of each epoch, on an axis scaled as for losses."""
    figure, axes = _curve_axes(epochs, "Learning rate")
    axes.plot(epochs, rates, color=RATE, marker=_marker(epochs), markersize=4, linewidth=1.4)
    _scale(axes, rates)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
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
    """Draws the accuracy of each confidence bin, 'before' and, if given, 'after' side by side.

    A line marks the mean confidence of each bin; the bars below show its share of the items.
    """
    figure = Figure(figsize=(5.6, 4.2), dpi=DPI)
    grid = {"height_ratios": (3, 1), "hspace": 0.14, "wspace": 0.26}
    place = {"left": 0.135, "right": 0.955, "top": 0.83, "bottom": 0.115}
    shared = {"sharex": True, "sharey": "row", "squeeze": False}
    panels = figure.subplots(2, len(sets), gridspec_kw=grid | place, **shared)
    for (name, bins), upper, lower in zip(sets.items(), *panels, strict=True):
        _draw_bins(upper, lower, bins, {"before": BEFORE, "after": AFTER}[name])
        if len(sets) > 1:
            upper.set_title(name, loc="left", fontsize=10)
    for axes, label in zip(panels[:, 0], ("accuracy", "files"), strict=True):
        axes.set_ylabel(label)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.align_ylabels(panels[:, 0])
    panels[1, 0].yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    panels[1, 0].xaxis.set_major_formatter(PercentFormatter(1))
    panels[1, 0].set_xticks([0, 0.5, 1])
    figure.text(0.135, 0.935, "Calibration", fontsize=11, fontweight="bold")
    line = panels[0, -1].collections[0]
    style = {"frameon": False, "fontsize": 8.5, "handlelength": 1.4, "loc": "upper right"}
    figure.legend([line], ["mean confidence"], borderaxespad=0.9, **style)
    return figure


def coverage(share: Float[np.ndarray, " points"], accuracy: Float[np.ndarray, " points"]) -> Figure:
    """Draws the accuracy of accepted items against their share of all items."""
    figure = Figure(figsize=(5.6, 3.6), dpi=DPI)
    axes = figure.add_axes((0.125, 0.14, 0.83, 0.72))
    axes.plot(share, accuracy, color=VALIDATION, linewidth=1.4, drawstyle="steps-post")
    axes.set_xlim(0, 1)
    lowest = float(accuracy.min()) if len(accuracy) else 0.0
    axes.set_ylim(max(0.0, lowest - 0.05), 1.005)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("files accepted")
    axes.set_ylabel("accuracy of these")
    _style_axes(axes, "Accuracy against coverage")
    return figure


def _draw_bins(upper: Axes, lower: Axes, bins: Bins, color: str) -> None:
    """Draws accuracy and confidence of each bin in `upper`, and its share of items in `lower`."""
    count, confidence, accuracy = bins
    edges = np.linspace(0, 1, len(count) + 1)
    used = count > 0
    left, right = edges[:-1][used], edges[1:][used]
    style = {"width": 0.86 * (right - left), "color": color}
    upper.plot([0, 1], [0, 1], color="#888888", linewidth=0.9, linestyle=":")
    upper.bar((left + right) / 2, accuracy[used], **style)
    upper.hlines(confidence[used], left, right, color="#1d2129", linewidth=1.6)
    lower.bar((left + right) / 2, count[used] / count.sum(), **style)
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.02)
    lower.set_xlabel("confidence")
    for axes in (upper, lower):
        _style_grid(axes)


def spectrogram(
    pixels: Float[np.ndarray, "rows columns channel"],
    axes: ImageAxes,
    evidence: Float[np.ndarray, "rows columns"] | None = None,
    width: float = 4.2,
) -> Figure:
    """Draws an image in 0…1 with its axes: seconds and hertz of a recording, or columns.

    `evidence`, in 0…1, is shown as in `overlay`; `width` is the width of the figure, in inches.
    """
    height = 0.62 * width
    figure = Figure(figsize=(width, height), dpi=DPI)
    left, right, below, above = 0.66 if axes.bands is not None else 0.3, 0.2, 0.42, 0.08
    inner = ((width - left - right) / width, (height - below - above) / height)
    drawn = figure.add_axes((left / width, below / height, *inner))
    rows = len(pixels)
    shown = np.clip(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels, 0, 1)
    if evidence is not None:
        shown = overlay(pixels, evidence)
    extent = (axes.left, axes.right, -0.5, rows - 0.5)
    style = {"cmap": "magma", "vmin": 0, "vmax": 1, "aspect": "auto", "extent": extent}
    drawn.imshow(shown, origin="upper", interpolation="antialiased", **style)
    # Few enough for numbers such as 3723.25, and without an offset such as +3.72e3 beside them.
    bins = 6 if axes.right < 100 else 3
    drawn.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10]))
    drawn.ticklabel_format(axis="x", style="plain", useOffset=False)
    drawn.tick_params(labelsize=8, length=2.5)
    drawn.set_xlabel("column" if axes.bands is None else "time, s", fontsize=8.5, labelpad=2)
    if axes.bands is None:
        drawn.set_yticks([])
    else:
        _name_frequencies(drawn, axes.bands, rows)
    return figure


def _name_frequencies(axes: Axes, bands: Float[np.ndarray, " bands"], rows: int) -> None:
    """Labels round frequencies, powers of ten first, at least an eighth of the height apart."""
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
    _style_grid(axes)


def _style_grid(axes: Axes) -> None:
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_shares(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _scale_losses(axes: Axes, losses: Float[np.ndarray, " n"]) -> None:
    is_log = _scale(axes, losses)
    axes.set_ylabel("cross-entropy, nats" + (" (log scale)" if is_log else ""))


def _scale(axes: Axes, values: Float[np.ndarray, " n"]) -> bool:
    """Scales an axis logarithmically if positive values span a factor above 20, else from 0.

    Returns whether the axis is logarithmic.
    """
    finite = values[np.isfinite(values)]
    if finite.size and 0 < finite.min() < finite.max() / 20:
        axes.set_yscale("log")
        wide = finite.max() / finite.min() > 1000
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        return True
    if finite.size:
        axes.set_ylim(0, 1.08 * finite.max() or 1)
    return False


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
