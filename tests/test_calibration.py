import numpy as np
import pytest

from meljax.evaluation import calibration
from meljax.evaluation.aggregation import item_probabilities
from meljax.evaluation.groups import Groups
from meljax.evaluation.scores import Scored

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


def chosen(logits, labels):
    return calibration.choose_temperature(logits, np.arange(len(labels)), labels)


@pytest.mark.parametrize("items", [49, 50])
def test_fewer_than_50_items_give_no_temperature(items):
    logits, labels = overconfident(items, 3)
    found = chosen(logits, labels)
    assert (found.value == 1) == (items == 49)
    few = "49 validation items, at least 50 needed"
    assert found.note == (few if items == 49 else "")


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_a_temperature_at_an_end_of_its_range_is_not_used(factor):
    logits, labels = overconfident(400, factor)
    best = calibration.fit_temperature(logits, np.arange(400), labels)
    ends = np.array(calibration.BOUNDS)
    assert np.abs(best / ends - 1).min() < 0.01
    found = chosen(logits, labels)
    assert found.value == 1
    assert found.note == "the best temperature is at an end of the range 0.05 to 20"


def test_a_temperature_within_one_percent_of_an_end_is_at_the_end(monkeypatch):
    logits, labels = overconfident(400, 3)
    for value, used in ((0.0504, False), (0.0506, True), (19.7, True), (19.9, False)):
        monkeypatch.setattr(calibration, "fit_temperature", lambda *_, value=value: value)
        monkeypatch.setattr(calibration, "log_loss", lambda *_: 0.0)
        assert (chosen(logits, labels).note == "") == used


def test_the_loss_of_the_fitted_items_never_rises():
    """Logits of all kinds: right, wrong, scaled, without mistakes, with few classes or many."""
    rng, raised = np.random.default_rng(0), 0
    for _ in range(150):
        items, classes = int(rng.integers(50, 120)), int(rng.integers(2, 9))
        labels = rng.integers(0, classes, items)
        signal = rng.choice([0, 1, 4, 12]) * np.eye(classes)[labels]
        logits = 10 ** rng.uniform(-1, 1) * (signal + rng.normal(size=(items, classes)))
        item = np.arange(items)
        value, note = chosen(logits, labels)
        before, after = (
            calibration.log_loss(item_probabilities(logits, item, t), labels) for t in (1.0, value)
        )
        assert after <= before
        assert (value == 1) == bool(note)
        raised += "does not lower the loss" in note
    assert raised


def test_smoothed_labels_may_raise_the_loss_and_the_note_says_so():
    labels = np.arange(60) % 5
    value, note = chosen(9 * np.eye(5)[labels], labels)
    assert value == 1
    assert note == "a fitted temperature does not lower the loss of the validation items"


def test_folds_keep_groups_together_and_balance_classes():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(23), rng.integers(1, 9, 23))
    labels = rng.integers(0, 3, len(group))
    fold = calibration.folds(labels, Groups(tuple(map(str, group))))
    for g in range(23):
        assert len(set(fold[group == g])) == 1
    counts = np.array([[((fold == f) & (labels == c)).sum() for c in range(3)] for f in range(5)])
    assert (counts.max(0) - counts.min(0)).max() <= 4
    assert np.ptp(counts.sum(1)) <= 4


def test_folds_of_single_items_differ_by_one_per_class():
    labels = np.repeat([3, 7, 8], [11, 26, 13])
    fold = calibration.folds(labels, Groups(("",) * 50))
    for label in (3, 7, 8):
        assert np.ptp(np.bincount(fold[labels == label], minlength=5)) <= 1
    assert set(np.bincount(fold)) == {10}


def test_five_groups_have_a_fold_each_whatever_their_sizes():
    group = np.repeat(np.arange(5), [90, 1, 2, 3, 4])
    fold = calibration.folds(np.zeros(100, int), Groups(tuple(map(str, group))))
    assert len({fold[group == g][0] for g in range(5)}) == 5


def scored_val(logits, labels, item=None, groups=None):
    item = np.arange(len(labels)) if item is None else item
    return Scored("val", 1, True, labels, logits, item, groups=groups).calibrated()


def test_a_held_out_item_does_not_fit_its_own_temperature():
    """Each fold is scored with the temperature of the others, found again by hand."""
    logits, labels = overconfident(60, 3)
    item = np.repeat(np.arange(60), 2)
    windows = np.repeat(logits, 2, 0) + RNG.normal(size=(120, 5))
    groups = Groups(tuple(str(i % 7) for i in range(60)), "speaker")
    scores = scored_val(windows, labels, item, groups)
    assert scores.cross_fitted
    fold = calibration.folds(labels, groups)
    values = set()
    for number in range(5):
        inside = np.flatnonzero(fold == number)
        others = np.flatnonzero(fold != number)
        rows = np.concatenate([[2 * i, 2 * i + 1] for i in others])
        twice = np.repeat(np.arange(len(others)), 2)
        value = calibration.fit_temperature(windows[rows], twice, labels[others])
        values.add(value)
        expected = item_probabilities(windows, item, value)[inside]
        np.testing.assert_allclose(scores.held_out_probabilities[inside], expected, atol=1e-12)
    assert len(values) == 5


def test_cross_fitted_scores_are_what_new_items_get():
    """On average over sets of 50 items; those of the fitted items themselves are too good."""
    seen, fitted, new = [], [], []
    for _ in range(25):
        logits, labels = overconfident(50, 1)
        scores = scored_val(logits, labels)
        others, truth = overconfident(500, 1)
        temperature = calibration.fit_temperature(logits, np.arange(50), labels)
        fitted.append(calibration.log_loss(scores.probabilities, labels) - scores.loss)
        seen.append(calibration.log_loss(scores.held_out_probabilities, labels) - scores.loss)
        after, before = (
            calibration.log_loss(item_probabilities(others, np.arange(500), t), truth)
            for t in (temperature, 1.0)
        )
        new.append(after - before)
    assert np.mean(fitted) < 0 < np.mean(seen)
    assert abs(np.mean(seen) - np.mean(new)) < abs(np.mean(fitted) - np.mean(new))


@pytest.mark.parametrize("groups", [4, 5])
def test_fewer_than_five_groups_are_not_cross_fitted(groups):
    logits, labels = overconfident(60, 3)
    scores = scored_val(logits, labels, None, Groups(tuple(str(i % groups) for i in range(60))))
    assert scores.temperature != 1
    assert scores.cross_fitted == (groups == 5)
    same = np.array_equal(scores.held_out_probabilities, scores.probabilities)
    assert same == (groups == 4)


def test_other_items_are_measured_with_the_temperature_itself():
    logits, labels = overconfident(60, 3)
    scores = scored_val(logits, labels)
    test = Scored("test", 1, True, labels, logits, np.arange(60))
    test = test.with_temperature(scores.chosen_temperature)
    assert not test.cross_fitted
    np.testing.assert_array_equal(test.held_out_probabilities, scores.probabilities)


def test_only_items_that_count_are_counted():
    logits, labels = overconfident(70, 3)
    labels[:25] = 0
    labels[25:] = 1 + labels[25:] % 4
    scores = Scored("val", 1, True, labels, logits, np.arange(70), unscored=(0,)).calibrated()
    assert scores.calibration_note == "45 validation items, at least 50 needed"
    assert scores.temperature == 1
    assert scores.fitted_here
    assert not scores.cross_fitted
