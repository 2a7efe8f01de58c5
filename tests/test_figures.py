"""Figures: every value drawn, in its colour, and nothing that would not fit."""

import numpy as np
import pytest
from PIL import Image

from meljax.pages import figures


@pytest.mark.parametrize("epochs", [1, 8, 500])
def test_curves_show_every_epoch_in_fixed_colours(epochs):
    x = np.arange(1, epochs + 1)
    y = x / (2 * epochs)
    axes = figures.score_curves(x, y, y / 2, "Accuracy", epochs).axes[0]
    train, val = axes.lines[:2]
    assert (train.get_color(), val.get_color()) == (figures.TRAINING, figures.VALIDATION)
    np.testing.assert_array_equal(val.get_ydata(), y / 2)
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


def test_a_logarithmic_axis_has_plain_numbers_and_not_too_many():
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
    for side in ("training", "validation"):
        axes = figures.loss_curve(np.arange(1, 4), np.array(losses, float), side).axes[0]
        assert axes.get_yscale() == scale
        low, high = axes.get_ylim()
        assert low <= min(losses) <= max(losses) < high


@pytest.mark.parametrize(("count", "counts", "labels"), [(2, 3, 2), (24, 25, 24), (100, 0, 50)])
def test_confusion_matrix_drops_counts_and_names_that_would_not_fit(count, counts, labels):
    confusion = 7 * np.eye(count, dtype=int)
    confusion[0, 1] = 2
    axes = figures.confusion_matrix(confusion, [f"class {i}" for i in range(count)]).axes[0]
    assert len(axes.texts) == counts
    assert len(axes.get_yticklabels()) == labels
    np.testing.assert_allclose(axes.images[0].get_array()[0, :2], [7 / 9, 2 / 9])


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_keep_low_frequencies_at_the_bottom_and_their_pixels_sharp(tmp_path, channels):
    pixels = np.zeros((4, 8, channels), np.float32)
    pixels[-1, :2] = 1
    figures.picture(pixels).savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        drawn = np.asarray(image.convert("L"), float)
    assert drawn.shape == (128, 256)
    bright = drawn > 128
    assert bright[96:, :64].all()
    assert bright.sum() == 32 * 64


def test_huge_pictures_are_shrunk(tmp_path):
    figures.picture(np.zeros((128, 9000, 1), np.float32)).savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1024, 128)
