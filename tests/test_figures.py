"""Figures: values, colors, labels and limits."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from meljax.evaluation import calibration
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


def test_calibration_before_and_after_have_different_colors_and_labels():
    """All items are predicted as the first class; half of them belong to it."""
    labels = np.array([0, 1])
    sure, unsure = (np.array([[share, 1 - share]] * 2) for share in (0.95, 0.55))
    sets = {"before": calibration.bins(sure, labels), "after": calibration.bins(unsure, labels)}
    axes = figures.reliability(sets).axes[0]
    for dots, name, color, place in zip(
        axes.collections, sets, ("#e69f00", "#0072b2"), (0.95, 0.55), strict=True
    ):
        assert dots.get_label() == name
        assert same_color(dots.get_facecolor()[0], color)
        np.testing.assert_allclose(dots.get_offsets(), [[place, 0.5]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["before", "after"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("confidence", "accuracy")


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


@pytest.mark.parametrize(("count", "counts", "labels"), [(2, 3, 2), (24, 25, 24), (100, 0, 50)])
def test_large_confusion_matrices_omit_counts_and_names(count, counts, labels):
    confusion = 7 * np.eye(count, dtype=int)
    confusion[0, 1] = 2
    axes = figures.confusion_matrix(confusion, [f"class {i}" for i in range(count)]).axes[0]
    assert len(axes.texts) == counts
    assert len(axes.get_yticklabels()) == labels
    np.testing.assert_allclose(axes.images[0].get_array()[0, :2], [7 / 9, 2 / 9])


def test_of_many_classes_evenly_spaced_ones_are_named_at_their_own_places():
    names = [f"class {i}" for i in range(100)]
    axes = figures.confusion_matrix(np.eye(100, dtype=int), names).axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        assert list(axis.get_majorticklocs()) == list(range(0, 100, 2))
        assert [label.get_text() for label in axis.get_majorticklabels()] == names[::2]


def test_confusion_matrix_has_true_classes_in_rows():
    confusion = np.array([[5, 3, 0], [0, 7, 1], [0, 0, 9]])
    axes = figures.confusion_matrix(confusion, ["ann", "bob", "cy"]).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["ann", "bob", "cy"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top
    shares = confusion / confusion.sum(1, keepdims=True)
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    assert {text.get_position(): int(text.get_text()) for text in axes.texts} == {
        (column, row): confusion[row, column] for row, column in np.argwhere(confusion)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_low_frequencies_at_the_bottom_and_sharp_pixels(tmp_path, channels):
    pixels = np.zeros((4, 8, channels), np.float32)
    pixels[-1, :2] = 1
    figures.image(pixels).savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        drawn = np.asarray(image.convert("L"), float)
    assert drawn.shape == (128, 256)
    bright = drawn > 128
    assert bright[96:, :64].all()
    assert bright.sum() == 32 * 64


def test_huge_images_are_shrunk(tmp_path):
    figures.image(np.zeros((128, 9000, 1), np.float32)).savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1024, 128)
