import jax.numpy as jnp
import numpy as np
import pytest

from meljax.data.batches import PADDING
from meljax.evaluation.aggregation import item_metrics, item_probabilities
from meljax.evaluation.calibration import log_loss
from meljax.evaluation.metrics import fetch

RNG = np.random.default_rng(0)


def test_an_items_probabilities_are_the_mean_of_its_windows():
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    item = np.array([0, 0, 0, 1])
    whole = item_probabilities(logits, item, 2.0)
    windows = item_probabilities(logits, np.arange(4), 2.0)
    np.testing.assert_allclose(whole[0], windows[:3].mean(0), rtol=1e-15)
    np.testing.assert_array_equal(whole[1], windows[3])
    expected = np.exp(logits[3] / 2.0) / np.exp(logits[3] / 2.0).sum()
    np.testing.assert_allclose(windows[3], expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 24, 1000])
def test_other_items_change_no_bit_of_an_items_probabilities(classes):
    logits = RNG.normal(size=(9, classes)).astype(np.float32)
    item = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
    together = item_probabilities(logits, item, 1.3)
    for i in range(6):
        own = logits[item == i]
        alone = item_probabilities(own, np.zeros(len(own), int), 1.3)
        np.testing.assert_array_equal(alone[0], together[i])


def test_host_and_devices_agree():
    """The float32 scores of each epoch equal the float64 scores of the final report."""
    item = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5])
    logits = (20 * RNG.normal(size=(10, 4))).astype(np.float32)
    labels = RNG.integers(0, 4, 6).astype(np.int32)
    padded = np.append(item, [PADDING, PADDING]).astype(np.int32).reshape(3, 4)
    table = np.concatenate([logits, 99 * np.ones((2, 4), np.float32)]).reshape(3, 4, 4)
    (measured,) = fetch(item_metrics(jnp.asarray(table), jnp.asarray(padded), labels))
    probabilities = item_probabilities(logits, item, 1.0)
    assert measured.count == 6
    assert float(measured.loss) == pytest.approx(log_loss(probabilities, labels), rel=1e-5)
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (labels, probabilities.argmax(1)), 1)
    np.testing.assert_array_equal(measured.confusion, confusion)


def test_a_class_that_every_window_rules_out_costs_a_finite_loss():
    """exp(-200) is 0 in float32."""
    table = jnp.array([[[0.0, 200.0], [0.0, 300.0]]])
    labels = np.array([0], np.int32)
    (measured,) = fetch(item_metrics(table, jnp.zeros((1, 2), jnp.int32), labels))
    assert float(measured.loss) == pytest.approx(200 + np.log(2), rel=1e-6)
