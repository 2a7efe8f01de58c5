import numpy as np
import pytest

from meljax import calibration

RNG = np.random.default_rng(0)


def overconfident(items: int, factor: float):
    """Logits whose probabilities were true before they were multiplied by `factor`."""
    logits = 2 * RNG.normal(size=(items, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([RNG.choice(5, p=row) for row in probabilities])
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_the_temperature_is_found_that_was_put_in(factor):
    logits, labels = overconfident(4000, factor)
    item = np.arange(len(labels))
    temperature = calibration.fit_temperature(logits, item, labels)
    assert temperature == pytest.approx(factor, rel=0.06)
    before = calibration.item_probabilities(logits, item, 1.0)
    after = calibration.item_probabilities(logits, item, temperature)
    assert calibration.log_loss(after, labels) <= calibration.log_loss(before, labels) + 1e-4
    assert calibration.calibration_error(after, labels) < 0.03
    if factor == 3:
        assert calibration.calibration_error(before, labels) > 0.1


def test_items_that_are_all_right_are_not_held_for_certain():
    labels = np.arange(50) % 5
    logits = 4 * np.eye(5)[labels]
    temperature = calibration.fit_temperature(logits, np.arange(50), labels)
    probabilities = calibration.item_probabilities(logits, np.arange(50), temperature)
    assert probabilities.max() == pytest.approx(1 - 1 / 52, abs=1e-3)


def test_an_items_probabilities_are_the_mean_of_its_windows():
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    item = np.array([0, 0, 0, 1])
    whole = calibration.item_probabilities(logits, item, 2.0)
    windows = calibration.item_probabilities(logits, np.arange(4), 2.0)
    np.testing.assert_allclose(whole[0], windows[:3].mean(0), rtol=1e-15)
    np.testing.assert_array_equal(whole[1], windows[3])
    expected = np.exp(logits[3] / 2.0) / np.exp(logits[3] / 2.0).sum()
    np.testing.assert_allclose(windows[3], expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 24, 1000])
def test_company_changes_no_bit_of_an_items_probabilities(classes):
    logits = RNG.normal(size=(9, classes)).astype(np.float32)
    item = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
    together = calibration.item_probabilities(logits, item, 1.3)
    for i in range(6):
        own = logits[item == i]
        alone = calibration.item_probabilities(own, np.zeros(len(own), int), 1.3)
        np.testing.assert_array_equal(alone[0], together[i])


def test_the_calibration_error_is_the_mean_gap_of_confidence_and_truth():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.0, 1.0]])
    labels = np.array([0, 1, 0, 1])
    # 0.9 twice, half of them right; 0.6 right; 1.0 right, in the last bin.
    expected = (2 * 0.4 + 0.4 + 0) / 4
    assert calibration.calibration_error(probabilities, labels) == pytest.approx(expected)


def test_top_accuracy_counts_classes_among_the_first_k():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3]])
    labels = np.array([1, 0, 1])
    found = [calibration.top_accuracy(probabilities, labels, k) for k in (1, 2, 3)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1])
