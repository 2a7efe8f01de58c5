import numpy as np
import pytest

from meljax.evaluation import calibration
from meljax.evaluation.aggregation import item_probabilities

RNG = np.random.default_rng(0)


def overconfident(items: int, factor: float):
    """Returns calibrated logits times `factor`, and labels."""
    logits = 2 * RNG.normal(size=(items, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([RNG.choice(5, p=row) for row in probabilities])
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_a_known_temperature_is_recovered(factor):
    logits, labels = overconfident(4000, factor)
    item = np.arange(len(labels))
    temperature = calibration.fit_temperature(logits, item, labels)
    assert temperature == pytest.approx(factor, rel=0.06)
    before = item_probabilities(logits, item, 1.0)
    after = item_probabilities(logits, item, temperature)
    assert calibration.log_loss(after, labels) <= calibration.log_loss(before, labels) + 1e-4
    assert calibration.calibration_error(after, labels) < 0.03
    if factor == 3:
        assert calibration.calibration_error(before, labels) > 0.1


def test_a_set_without_mistakes_does_not_give_certainty():
    labels = np.arange(50) % 5
    logits = 4 * np.eye(5)[labels]
    temperature = calibration.fit_temperature(logits, np.arange(50), labels)
    probabilities = item_probabilities(logits, np.arange(50), temperature)
    assert probabilities.max() == pytest.approx(1 - 1 / 52, abs=1e-3)


def test_doubt_is_counted_in_items_and_not_in_windows():
    labels = np.arange(50) % 5
    logits = 4 * np.eye(5)[labels]
    one = calibration.fit_temperature(logits, np.arange(50), labels)
    windows, item = np.repeat(logits, 3, 0), np.repeat(np.arange(50), 3)
    assert calibration.fit_temperature(windows, item, labels) == pytest.approx(one)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.0, 1.0]])
    labels = np.array([0, 1, 0, 1])
    # 0.9 twice, half of them right; 0.6 right; 1.0 right, in the last bin.
    expected = (2 * 0.4 + 0.4 + 0) / 4
    assert calibration.calibration_error(probabilities, labels) == pytest.approx(expected)


def test_a_confidence_of_one_is_in_the_last_bin():
    probabilities = np.array([[1.0, 0.0], [0.98, 0.02], [0.5, 0.5]])
    count, confidence, accuracy = calibration.bins(probabilities, np.array([0, 1, 0]))
    assert count.tolist() == [0] * 7 + [1] + [0] * 6 + [2]
    assert confidence[[7, 14]] == pytest.approx([0.5, 0.99])
    assert accuracy[[7, 14]].tolist() == [1, 0.5]


def test_a_true_class_of_probability_zero_costs_a_finite_loss():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]])
    loss = calibration.log_loss(probabilities, np.array([1, 1]))
    assert loss == pytest.approx((-np.log(np.finfo(np.float64).tiny) + np.log(2)) / 2)
