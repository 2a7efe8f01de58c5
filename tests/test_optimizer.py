"""The optimizer equals a plain Adam whose learning rate falls after each epoch."""

import jax.numpy as jnp
import numpy as np
import pytest

from meljax.config import TrainConfig
from meljax.training.state import learning_rate, make_optimizer

pytestmark = pytest.mark.accelerator


def updates(optimizer, gradients) -> list[float]:
    """Returns the update of a weight in each step."""
    state, weight, added = optimizer.init(jnp.float32(0)), jnp.float32(0), []
    for gradient in gradients:
        update, state = optimizer.update(jnp.float32(gradient), state, weight)
        added.append(float(update))
    return added


def test_the_learning_rate_falls_only_between_epochs():
    """With a constant gradient, each step of Adam is as long as the learning rate."""
    config = TrainConfig(batch_size=8, learning_rate=0.1, lr_decay=0.5)
    rates = np.repeat([0.1, 0.05, 0.025], 3)  # 21 items are three steps
    assert updates(make_optimizer(config, 21), np.ones(9)) == pytest.approx(-rates, rel=1e-4)
    named = [learning_rate(0.1, 0.5, epoch) for epoch in (1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert named == pytest.approx(rates)
    steady = make_optimizer(TrainConfig(batch_size=8, learning_rate=0.1), 21)
    assert updates(steady, np.ones(9)) == pytest.approx([-0.1] * 9, rel=1e-4)


def test_updates_equal_adam():
    gradients = [1.0, -2.0, 0.5, 3.0]
    mean, square, expected = 0.0, 0.0, []
    for step, gradient in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        size = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        expected.append(-0.01 * size)
    optimizer = make_optimizer(TrainConfig(learning_rate=0.01), 5)
    assert updates(optimizer, gradients) == pytest.approx(expected, rel=1e-4)
