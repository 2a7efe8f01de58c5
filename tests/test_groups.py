"""Groups of items, and the intervals and tests that respect them."""

import dataclasses
import itertools

import numpy as np
import pytest
from samples import confused, scored
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from meljax.data.manifest import Item
from meljax.evaluation import statistics
from meljax.evaluation.groups import Groups, groups_of
from meljax.evaluation.scores import Predicted
from meljax.reports.summary import with_interval

ALONE = Groups(("",) * 40)


def numbered(index, name="speaker"):
    return Groups(tuple(f"s{i}" for i in index), name)


def made(seed=0, groups=12, items=90, classes=4):
    """Returns labels, predictions and groups of uneven sizes, where groups differ in difficulty."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, items)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, items - groups)])
    hard = rng.uniform(0, 0.6, groups)[group]
    shifted = (labels + rng.integers(1, classes, items)) % classes
    return labels, np.where(rng.uniform(size=items) < hard, shifted, labels), group


def predicted(labels, predictions, groups=None, classes=4, **attributes):
    probabilities = 0.1 / classes + 0.9 * np.eye(classes)[predictions]
    return Predicted("val", 1, True, labels, (), probabilities, groups=groups, **attributes)


def test_an_item_without_group_is_alone_and_a_segment_belongs_to_its_recording():
    whole = Item("a.wav", "x")
    segments = [Item("b.wav", "x", start=start, end=2.0) for start in (0.0, 1.0)]
    given = Item("c.wav", "x", group="ann", start=0.0, end=1.0)
    groups = groups_of([whole, whole, *segments, given, given], "speaker")
    assert groups.values == ("", "", "b.wav", "b.wav", "ann", "ann")
    assert groups.index.tolist() == [0, 1, 2, 2, 3, 3]
    assert groups.number == 4
    assert groups.shared
    assert groups.name == "speaker"
    assert groups_of(segments, "speaker").text() == "1 recording"
    assert not groups_of([whole, whole], "speaker").shared
    assert groups.of(np.array([1, 0, 1, 0, 1, 0], bool)).values == ("", "b.wav", "ann")


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("group", "1 group", "2 groups"),
        ("speaker", "1 speaker", "2 speakers"),
        ("day", "1 day", "2 days"),
        ("city", "1 value of city", "2 values of city"),
        ("species", "1 value of species", "2 values of species"),
        ("speaker_id", "1 value of speaker_id", "2 values of speaker_id"),
        ("Recorder", "1 value of Recorder", "2 values of Recorder"),
    ],
)
def test_groups_are_named_by_their_column(name, one, two):
    assert numbered([0, 0], name).text() == one
    assert numbered([0, 1], name).text() == two


@pytest.mark.parametrize("unscored", [(), (1,)])
def test_scores_equal_scikit_learn(unscored):
    labels, predictions, _ = made()
    scores = predicted(labels, predictions, unscored=unscored)
    kept = ~np.isin(labels, unscored)
    np.testing.assert_array_equal(scores.confusion, confusion_matrix(labels, predictions))
    assert scores.accuracy == accuracy_score(labels[kept], predictions[kept])
    wanted = [c for c in range(4) if c not in unscored]
    # Items that are left out count neither as label nor as prediction.
    expected = f1_score(labels[kept], predictions[kept], labels=wanted, average="macro")
    assert scores.macro_f1 == pytest.approx(expected, abs=1e-12)


def reference(labels, predictions, group, measure, seed, resamples=2000):
    """Returns the interval of resampled groups, one resample after the other."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    values = []
    for _ in range(resamples):
        chosen = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        values.append(measure(labels[chosen], predictions[chosen]))
    return np.percentile(values, [2.5, 97.5])


def test_the_bootstrap_of_groups_is_that_of_whole_groups_with_all_their_items():
    labels, predictions, group = made()

    def macro(true, found):
        confusion = np.zeros((4, 4), int)
        np.add.at(confusion, (true, found), 1)
        return statistics.macro_f1(confusion)

    found = statistics.bootstrap_share(labels == predictions, group)
    expected = reference(labels, predictions, group, accuracy_score, seed=1, resamples=1000)
    assert found == pytest.approx(expected, abs=0.015)
    found = statistics.bootstrap_macro_f1_of_groups(labels, predictions, group, 4)
    assert found == pytest.approx(reference(labels, predictions, group, macro, 2), abs=0.015)


def test_resamples_in_parts_and_their_memory(monkeypatch):
    labels, predictions, group = made()
    monkeypatch.setattr(statistics, "_PART", 3000)
    for bounds in (
        statistics.bootstrap_share(labels == predictions, group),
        statistics.bootstrap_macro_f1_of_groups(labels, predictions, group, 4),
    ):
        assert 0 < bounds[0] < bounds[1] < 1
    parts = list(statistics._draws(12, 12, 2000, seed=0))
    assert len(parts) == 8
    assert {len(part) for part in parts} == {250}
    assert {int(row.sum()) for part in parts for row in part} == {12}


def test_intervals_are_the_same_each_time_and_in_any_order_of_names():
    labels, predictions, group = made()
    one, other = (predicted(labels, predictions, numbered(names)) for names in (group, 100 + group))
    assert one.accuracy_interval == other.accuracy_interval
    assert one.macro_f1_interval == other.macro_f1_interval
    assert one.accuracy_interval.method == "bootstrap of groups"


def test_groups_that_differ_widen_the_interval():
    """10 of 20 speakers are always right, 10 are right half of the time."""
    group = np.repeat(np.arange(20), 10)
    right = (group < 10) | (np.arange(200) % 2 == 0)
    low, high = statistics.share_interval(right, numbered(group), True).bounds
    alone = statistics.wilson(150, 200)
    assert high - low > 1.5 * (alone[1] - alone[0])


def test_the_bootstrap_of_groups_covers_the_truth_where_wilson_does_not():
    """Each of 20 speakers has a difficulty of its own, uniform in 0.5…1; the truth is 0.75."""
    rng, covered, naive = np.random.default_rng(0), 0, 0
    group = np.repeat(np.arange(20), 30)
    for _ in range(200):
        right = rng.uniform(size=600) < rng.uniform(0.5, 1, 20)[group]
        low, high = statistics.bootstrap_share(right, group, 400)
        covered += low <= 0.75 <= high
        low, high = statistics.wilson(int(right.sum()), 600)
        naive += low <= 0.75 <= high
    assert 178 <= covered <= 198
    assert naive < 150


@pytest.mark.parametrize("groups", [7, 8])
def test_fewer_than_eight_groups_allow_no_interval(groups):
    labels, predictions, group = made(groups=groups)
    scores = predicted(labels, predictions, numbered(group))
    few = "7 speakers: too few for an interval"
    for interval in (scores.accuracy_interval, scores.macro_f1_interval):
        assert (interval.bounds is None) == (groups == 7)
        assert interval.note == (few if groups == 7 else "over 8 speakers")
    shown = with_interval(scores.accuracy, scores.accuracy_interval)
    assert (f"({few})" in shown) == (groups == 7)
    assert ("95 % interval over 8 speakers: " in shown) == (groups == 8)


@pytest.mark.parametrize("groups", [None, Groups(("",) * 90), numbered(range(90))])
def test_items_that_are_their_own_groups_are_independent(groups):
    labels, predictions, _ = made()
    scores = predicted(labels, predictions, groups)
    right = int((labels == predictions).sum())
    assert scores.accuracy_interval == (statistics.wilson(right, 90), "Wilson", "")
    bounds = statistics.bootstrap_macro_f1(scores.confusion)
    assert scores.macro_f1_interval == (bounds, "bootstrap", "")
    for label in range(4):
        files = labels == label
        bounds = statistics.wilson(int((predictions[files] == label).sum()), int(files.sum()))
        assert scores.recall_interval(label).bounds == bounds


def test_only_items_that_count_decide_whether_groups_count():
    """The background's windows share a recording; the other items are independent."""
    labels, predictions, _ = made()
    groups = Groups(tuple("noise.wav" if label == 0 else "" for label in labels), "recording")
    scores = predicted(labels, predictions, groups, unscored=(0,), background=0)
    assert scores.accuracy_interval.method == scores.recall_interval(1).method == "Wilson"
    assert scores.recall_interval(0).note == "1 recording: too few for an interval"


def test_without_mistakes_or_right_files_a_group_is_a_trial():
    labels, _, group = made()
    for wrong, successes, none in ((0, 12, "wrong"), (1, 0, "right")):
        scores = predicted(labels, (labels + wrong) % 4, numbered(group))
        bounds = statistics.wilson(successes, 12)
        assert scores.accuracy_interval.bounds == bounds
        assert scores.accuracy_interval.note == "over 12 speakers"
        for each in (scores, predicted(labels, (labels + wrong) % 4)):
            assert each.macro_f1_interval == (None, "", f"no interval: no file was {none}")


def test_an_interval_is_never_narrower_than_with_independent_items():
    """One mistake, and mistakes that are spread evenly, where the bootstrap has no width."""
    group = np.repeat(np.arange(10), 4)
    labels = np.tile(np.arange(4), 10)
    for wrong in (np.arange(40) == 0, np.arange(40) % 4 == 0):
        predictions = np.where(wrong, (labels + 1) % 4, labels)
        scores = predicted(labels, predictions, numbered(group))
        alone = predicted(labels, predictions)
        for name in ("accuracy_interval", "macro_f1_interval"):
            low, high = getattr(scores, name).bounds
            inner = getattr(alone, name).bounds
            assert low <= inner[0] < inner[1] <= high
    assert np.ptp(statistics.bootstrap_share(np.arange(40) % 4 > 0, group)) == 0


def test_intervals_of_classes_follow_their_groups():
    """Class 0 has files of 3 speakers, class 1 of 12; all predictions are of 12."""
    labels = np.repeat([0, 1], [30, 60])
    group = np.concatenate([np.arange(30) % 3, np.arange(60) % 12])
    predictions = np.where(np.arange(90) % 7 == 0, 1 - labels, labels)
    scores = predicted(labels, predictions, numbered(group), classes=2)
    assert scores.recall_interval(0).note == "3 speakers: too few for an interval"
    files = labels == 1
    expected = statistics.bootstrap_share(predictions[files] == 1, numbered(group[files]).index)
    wilson = statistics.wilson(int((predictions[files] == 1).sum()), 60)
    hull = min(expected[0], wilson[0]), max(expected[1], wilson[1])
    assert scores.recall_interval(1).bounds == hull
    assert scores.precision_interval(1).note == "over 12 speakers"


@pytest.mark.parametrize("seed", range(8))
def test_the_permutation_p_is_that_of_all_signs(seed):
    rng = np.random.default_rng(seed)
    differences = rng.integers(-4, 6, 11)
    signs = np.array(list(itertools.product((-1, 1), repeat=11)))
    extreme = np.abs(signs @ differences) >= abs(differences.sum())
    assert statistics.sign_flips(differences) == pytest.approx(extreme.mean(), abs=1e-12)
    assert statistics.sign_flips(-differences) == statistics.sign_flips(differences)


def test_the_permutation_of_single_items_is_mcnemars_test():
    differences = np.array([1] * 9 + [-1] * 2 + [0] * 30)
    p = statistics.mcnemar(differences == 1, differences == -1)
    assert statistics.sign_flips(differences) == pytest.approx(p, abs=1e-12)
    assert statistics.sign_flips(np.zeros(9, int)) == 1


def test_the_test_is_chosen_by_the_groups():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(size=(2, 40)) < np.array([[0.9], [0.6]])
    test = statistics.paired_test(first, second, ALONE)
    assert (test.p, test.test) == (statistics.mcnemar(first, second), "McNemar’s test")
    group = np.arange(40) % 8
    test = statistics.paired_test(first, second, numbered(group))
    differences = [int(first[group == g].sum() - second[group == g].sum()) for g in range(8)]
    assert test.p == statistics.sign_flips(np.array(differences))
    assert test.test == "permutation of 8 speakers"
    assert test[:4] == statistics.paired_test(first, second, ALONE)[:4]
    test = statistics.paired_test(first, second, numbered(np.arange(40) % 7))
    assert (test.p, test.test) == (None, "7 speakers: too few for a p-value")


def test_a_difference_within_one_group_is_no_evidence():
    """McNemar's test treats 12 files of one speaker as independent."""
    first = np.ones(96, bool)
    second = np.arange(96) >= 12
    assert statistics.mcnemar(first, second) < 0.001
    assert statistics.paired_test(first, second, numbered(np.arange(96) // 12)).p == 1


def test_scores_of_counted_items_keep_their_groups():
    scores = confused([[3, 1], [2, 4]])
    groups = numbered(np.arange(10) // 2)
    scores = dataclasses.replace(scores, groups=groups, unscored=(0,))
    assert scores.only_counted.groups == groups.of(scores.labels == 1)
    assert scored("val", 1, True, 4, 8, 1).item_groups == Groups(("",) * 8)
