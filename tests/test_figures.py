"""Figures: values, colors, labels and limits."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.text import Text

from meljax.config import MelConfig
from meljax.evaluation import calibration
from meljax.features.axes import ImageAxes, image_axes
from meljax.features.frontend import Frontend
from meljax.reports import figures


@pytest.mark.parametrize("epochs", [1, 8, 500])
def test_curves_show_every_epoch_in_fixed_colors(epochs):
    x = np.arange(1, epochs + 1)
    y = x / (2 * epochs)
    axes = figures.score_curves(x, y, y / 2, "Accuracy", epochs).axes[0]
    train, val = axes.lines[:2]
    assert (train.get_color(), val.get_color()) == (figures.TRAINING, figures.VALIDATION)
    np.testing.assert_array_equal(train.get_ydata(), y)
    np.testing.assert_array_equal(val.get_ydata(), y / 2)
    assert (train.get_label(), val.get_label()) == ("training", "validation")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:2] == ["training", "validation"]
    assert axes.get_xlim()[0] < 1 <= epochs < axes.get_xlim()[1]
    assert (val.get_marker() == "o") == (epochs < 500)
    ticks = [t for t in axes.get_xticks() if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    assert ticks
    assert all(t == round(t) for t in ticks)


def test_best_epoch_is_marked_at_its_own_score():
    x = np.arange(1, 6)
    axes = figures.score_curves(x, x / 5, x / 10, "Accuracy", 3).axes[0]
    mark = axes.lines[-1]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([3], [0.3])
    assert mark.get_label() == "best, epoch 3"


@pytest.mark.parametrize("split", ["training", "validation"])
def test_losses_have_the_color_of_their_split_and_the_lowest_validation_loss_is_marked(split):
    losses = np.array([2, 0.9, 0.5, 0.8])
    axes = figures.loss_curve(np.arange(1, 5), losses, split).axes[0]
    assert axes._left_title.get_text() == f"{split.capitalize()} loss"
    curve = axes.lines[0]
    assert curve.get_color() == {"training": "#d55e00", "validation": "#0072b2"}[split]
    np.testing.assert_array_equal(curve.get_ydata(), losses)
    marks = [line for line in axes.lines if line.get_marker() == "v"]
    assert len(marks) == (split == "validation")
    for mark in marks:
        assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([3], [0.5])
        assert mark.get_label() == "lowest, epoch 3"


def test_calibration_before_and_after_are_side_by_side():
    """All items are predicted as the first class; half of them belong to it."""
    labels = np.array([0, 1])
    sure, unsure = (np.array([[share, 1 - share]] * 2) for share in (0.95, 0.55))
    sets = {"before": calibration.bins(sure, labels), "after": calibration.bins(unsure, labels)}
    figure = figures.reliability(sets)
    for axes, name, color, place in zip(
        figure.axes[:2], sets, ("#e69f00", "#0072b2"), (0.95, 0.55), strict=True
    ):
        assert axes.get_title("left") == name
        (bar,) = axes.patches
        assert same_color(bar.get_facecolor(), color)
        assert bar.get_height() == 0.5
        assert bar.get_x() < place < bar.get_x() + bar.get_width()
        assert axes.collections[0].get_segments()[0][0, 1] == pytest.approx(place)
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == ["confidence"] * 2


@pytest.mark.parametrize("items", [3, 3000])
def test_no_text_of_the_calibration_figure_overlaps(items):
    labels = np.arange(items) % 2
    share = np.linspace(0.5, 1, items)
    bins = calibration.bins(np.stack([share, 1 - share], 1), labels)
    assert_no_overlap(figures.reliability({"before": bins, "after": bins}))


@pytest.mark.parametrize("start", [-800, 0, 16_000 * 7200])
def test_no_text_of_a_spectrogram_overlaps_or_is_cut_off(start):
    frontend = Frontend("audio", 4000, 0, 1, 0, MelConfig())
    pixels = np.zeros((128, 126, 1), np.float32)
    for axes in (image_axes(frontend, start), ImageAxes(start // 1000, start // 1000 + 126, None)):
        assert_no_overlap(figures.spectrogram(pixels, axes, width=2.9))


def assert_no_overlap(figure):
    """Asserts that all drawn text is inside the figure, and that no two texts overlap."""
    FigureCanvasAgg(figure).draw()
    ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    drawn = {tick.label1 for axis in ticks for tick in axis._update_ticks()}
    labels = {label for axis in ticks for label in axis.get_ticklabels(which="both")}
    boxes = {
        text: text.get_window_extent()
        for text in figure.findobj(lambda each: isinstance(each, Text) and each.get_visible())
        if text.get_text() and (text in drawn or text not in labels)
    }
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not a.overlaps(b), (one, other)


def test_a_spectrogram_has_seconds_and_hertz_at_their_places():
    mel = MelConfig(n_mels=64, hop_length=160)
    frontend = Frontend("audio", 16_000, 0, 1, 0, mel)
    pixels = np.linspace(0, 1, 64 * 101, dtype=np.float32).reshape(64, 101, 1)
    axes = figures.spectrogram(pixels, image_axes(frontend, 32_000)).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), pixels[:, :, 0])
    assert axes.get_xlim() == pytest.approx((2 - 0.005, 3 + 0.005))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time, s", "frequency, Hz")
    centers = image_axes(frontend, 0).bands
    for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True):
        hertz = float(label.get_text().replace(",", ""))
        assert np.interp(hertz, centers, np.arange(64)) == pytest.approx(place)


def test_both_losses_are_on_one_axis():
    x, train, val = np.arange(1, 4), np.array([3, 0.5, 0.1]), np.array([2, 1, 1.5])
    axes = figures.loss_curves(x, train, val).axes[0]
    for line, values, color in zip(axes.lines, (train, val), ("#d55e00", "#0072b2"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
        assert line.get_color() == color
    assert axes.get_yscale() == "log"  # 30-fold
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["training", "validation"]


@pytest.mark.parametrize(("decay", "scale"), [(0.9, "linear"), (0.5, "log")])
def test_the_learning_rate_is_drawn_over_the_epochs(decay, scale):
    x = np.arange(1, 9)
    axes = figures.rate_curve(x, 3e-3 * decay**x).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), 3e-3 * decay**x)
    assert axes.get_yscale() == scale


def test_compared_runs_are_solid_and_their_training_is_dashed():
    solid, dashed = np.array([0.2, 0.6, 0.5]), np.array([0.3, 0.7, 0.9])
    curve = figures.RunCurves("a", figures.RUNS[0], np.arange(1, 4), solid, dashed, 2)
    axes = figures.compared_curves([curve], "Accuracy", losses=False).axes[0]
    faint, full, star = axes.lines
    np.testing.assert_array_equal(faint.get_ydata(), dashed)
    assert faint.is_dashed()
    np.testing.assert_array_equal(full.get_ydata(), solid)
    assert not full.is_dashed()
    assert full.get_label() == "a"
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([2], [0.6])


def test_a_logarithmic_axis_has_few_plain_numbers():
    for losses in ([3, 0.14, 0.3], [3, 0.002, 0.01], [3, 1e-6, 1e-4]):
        figure = figures.loss_curve(np.arange(1, 4), np.array(losses, float), "training")
        figure.canvas.draw()
        axis = figure.axes[0].yaxis
        texts = [t.get_text() for t in axis.get_ticklabels(which="both") if t.get_text()]
        low, high = axis.get_view_interval()
        shown = [t for t in texts if low <= float(t.replace("−", "-")) <= high]
        assert 2 <= len(shown) <= 12


@pytest.mark.parametrize(
    ("losses", "scale"), [([2, 1, 0.5], "linear"), ([2, 0.1, 0.01], "log"), ([0, 0, 0], "linear")]
)
def test_loss_is_logarithmic_only_over_a_wide_range(losses, scale):
    for split in ("training", "validation"):
        axes = figures.loss_curve(np.arange(1, 4), np.array(losses, float), split).axes[0]
        assert axes.get_yscale() == scale
        low, high = axes.get_ylim()
        assert low <= min(losses) <= max(losses) < high


@pytest.mark.parametrize("channels", [1, 3])
def test_spectrograms_have_low_frequencies_at_the_bottom(channels):
    pixels = np.zeros((4, 8, channels), np.float32)
    pixels[-1, :2] = 1
    figure = figures.spectrogram(pixels, ImageAxes(0, 8, None))
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    left, bottom = np.round(axes.bbox.p0).astype(int)
    width, height = np.round(axes.bbox.size).astype(int)
    drawn = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].mean(-1)  # from the bottom
    assert drawn[bottom + height // 8, left + width // 8] > 200
    assert drawn[bottom + height // 2, left + width // 8] < 20
    assert drawn[bottom + height // 8, left + width // 2] < 20


@pytest.mark.parametrize("points", [0, 1, 60])
def test_coverage_is_drawn_over_all_accuracies(points):
    share = np.linspace(1 / 60, 1, 60)[:points]
    accuracy = np.linspace(1, 0.83, 60)[:points]
    (axes,) = figures.coverage(share, accuracy).axes
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), share)
    np.testing.assert_array_equal(line.get_ydata(), accuracy)
    low, high = axes.get_ylim()
    assert (accuracy >= low).all()
    assert (accuracy <= high).all()
