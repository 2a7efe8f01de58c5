"""How weights are updated."""

import optax

from meljax.config import TrainConfig


def optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """Returns Adam (Kingma & Ba 2015) with PyTorch's defaults and a constant learning rate."""
    return optax.adam(config.learning_rate, b1=0.9, b2=0.999, eps=1e-8)
