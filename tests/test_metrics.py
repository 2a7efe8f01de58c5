import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from meljax.evaluation import metrics, statistics
from meljax.evaluation.metrics import Metrics

pytestmark = pytest.mark.accelerator

updated = jax.jit(Metrics.updated)


def measured(logits, labels, weights, batch):
    """Returns the metrics of all items, accumulated over batches."""
    total = Metrics.zero(logits.shape[1])
    for first in range(0, len(labels), batch):
        part = slice(first, first + batch)
        total = updated(total, logits[part], labels[part], weights[part])
    return jax.device_get(total)


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 101).astype(np.int32)
    logits = rng.normal(size=(101, 6)).astype(np.float32)
    logits[np.arange(101), labels] += 1
    return logits, labels, np.ones(101, np.float32)


@pytest.mark.parametrize("batch", [1, 7, 101])
def test_scores_equal_sklearn_over_the_whole_set(items, batch):
    logits, labels, weights = items
    total = measured(logits, labels, weights, batch)
    confusion = np.asarray(total.confusion)
    predictions = logits.argmax(1)
    assert confusion.sum() == 101
    assert metrics.accuracy(confusion) == sklearn_metrics.accuracy_score(labels, predictions)
    expected = sklearn_metrics.f1_score(labels, predictions, average="macro")
    assert float(metrics.macro_f1(confusion)) == pytest.approx(expected, abs=1e-12)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = sklearn_metrics.log_loss(labels, probabilities, labels=np.arange(6))
    assert float(total.loss) == pytest.approx(loss, rel=1e-5)
    per_class = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=np.arange(6), zero_division=0
    )
    np.testing.assert_allclose(metrics.class_scores(confusion), per_class[:3], atol=1e-12)


def test_fetch_changes_no_value(items):
    logits, *rest = items
    total = updated(Metrics.zero(6), logits, *rest)
    totals = [total.replace(first_bad_step=jnp.int32(step)) for step in (3, 2**30)]
    bad = updated(Metrics.zero(6), logits * np.inf, *rest).replace(skipped=jnp.int32(7))
    for total, on_host in zip([*totals, bad], metrics.fetch(*totals, bad), strict=True):
        for a, b in zip(jax.tree.leaves(total), jax.tree.leaves(on_host), strict=True):
            assert isinstance(b, np.ndarray)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert metrics.fetch(bad)[0].skipped == 7


def test_a_class_that_never_occurs_does_not_count():
    confusion = np.array([[3, 0, 0], [1, 2, 0], [0, 0, 0]])
    f1 = sklearn_metrics.f1_score([0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], average="macro")
    assert float(metrics.macro_f1(confusion)) == pytest.approx(f1)


def test_padding_does_not_count(items):
    logits, labels, weights = items
    logits, labels = np.concatenate([logits, logits]), np.concatenate([labels, labels])
    logits[101:] = np.nan
    padded = measured(logits, labels, np.concatenate([weights, 0 * weights]), 11)
    alone = measured(*items, 11)
    np.testing.assert_array_equal(padded.confusion, alone.confusion)
    np.testing.assert_allclose(padded.loss, alone.loss, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stays_so_over_later_batches(items, bad):
    logits, labels, weights = items
    assert np.isfinite(measured(*items, 10).loss_sum)
    logits[35] = bad
    assert not np.isfinite(measured(logits, labels, weights, 10).loss_sum)


@pytest.mark.parametrize(
    ("hits", "total", "lower", "upper"),
    # The first is from the original report; the others are Wilson's formula at 0 and 1, by hand.
    [(210, 247, 0.800, 0.889), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],
)
def test_wilson_interval(hits, total, lower, upper):
    assert statistics.wilson(hits, total) == pytest.approx((lower, upper), abs=5e-4)


def test_the_bootstrap_interval_has_the_right_coverage():
    rng = np.random.default_rng(0)
    cells = np.array([[0.4, 0.1], [0.2, 0.3]])
    truth = float(metrics.macro_f1((cells * 1e6).astype(int)))
    covered = 0
    for seed in range(200):
        confusion = rng.multinomial(200, cells.ravel()).reshape(2, 2)
        lower, upper = statistics.bootstrap_macro_f1(confusion, (), 400, seed)
        covered += lower <= truth <= upper
    assert 180 <= covered <= 199


def test_without_mistakes_there_is_no_bootstrap_interval():
    assert statistics.bootstrap_macro_f1(np.diag([5, 9, 3])) is None


def test_the_bootstrap_of_many_classes_is_computed_in_parts():
    confusion = np.diag(np.full(300, 3)) + np.eye(300, k=1, dtype=int)
    lower, upper = statistics.bootstrap_macro_f1(confusion, (), 200)
    assert lower < float(metrics.macro_f1(confusion)) < upper + 0.05


def test_top_accuracy_counts_classes_among_the_first_k():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3]])
    labels = np.array([1, 0, 1])
    found = [metrics.top_accuracy(probabilities, labels, k) for k in (1, 2, 3)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1])
