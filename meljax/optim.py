"""How weights are updated."""

import optax

from meljax.config import TrainConfig
from meljax.data.feed import steps_per_epoch


def optimiser(config: TrainConfig, items: int) -> optax.GradientTransformation:
    """Returns Adam (Kingma & Ba 2015) with PyTorch's defaults.

    The learning rate depends on the step alone, never on how many epochs there will be, so that a
    run that is given more epochs goes on as if it had always had them.

    Args:
      config: `learning_rate` and its `decay`, a factor after each epoch.
      items: in the training set.
    """
    steps = steps_per_epoch(items, config.batch_size)
    rate = optax.exponential_decay(config.learning_rate, steps, config.decay, staircase=True)
    return optax.adam(rate, b1=0.9, b2=0.999, eps=1e-8)
