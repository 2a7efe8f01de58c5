"""The confusion matrix as an image: its names, counts and colors."""

import numpy as np
import pytest

from meljax.reports.confusion_figure import confusion_matrix, rendered


@pytest.mark.parametrize(("count", "counts", "labels"), [(2, 3, 2), (24, 25, 24), (100, 0, 50)])
def test_large_confusion_matrices_omit_counts_and_names(count, counts, labels):
    confusion = 7 * np.eye(count, dtype=int)
    confusion[0, 1] = 2
    axes = confusion_matrix(confusion, [f"class {i}" for i in range(count)]).axes[0]
    assert len(axes.texts) == counts
    assert len(axes.get_yticklabels()) == labels
    np.testing.assert_allclose(axes.images[0].get_array()[0, :2], [7 / 9, 2 / 9])


def test_of_many_classes_evenly_spaced_ones_are_named_at_their_own_places():
    names = [f"class {i}" for i in range(100)]
    axes = confusion_matrix(np.eye(100, dtype=int), names).axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        assert list(axis.get_majorticklocs()) == list(range(0, 100, 2))
        assert [label.get_text() for label in axis.get_majorticklabels()] == names[::2]


def test_a_rendered_figure_holds_its_labels_and_its_size_is_limited():
    def size(name: str, count: int) -> tuple[int, ...]:
        names = [f"{name}{i}" for i in range(count)]
        image = rendered(confusion_matrix(np.eye(count, dtype=int), names))
        assert image.dtype == np.uint8
        return image.shape

    rows, columns, channels = size("", 3)
    longer = size("long name ", 3)
    assert rows + 30 < longer[0]
    assert columns + 30 < longer[1]
    assert channels == 3
    assert max(size("a name that is much too long ", 500)) < 1200


def test_confusion_matrix_has_true_classes_in_rows():
    confusion = np.array([[5, 3, 0], [0, 7, 1], [0, 0, 9]])
    axes = confusion_matrix(confusion, ["ann", "bob", "cy"]).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["ann", "bob", "cy"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top
    shares = confusion / confusion.sum(1, keepdims=True)
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    assert {text.get_position(): int(text.get_text()) for text in axes.texts} == {
        (column, row): confusion[row, column] for row, column in np.argwhere(confusion)
    }
