"""What changes while a run trains, and is saved."""

from typing import Any

import flax


@flax.struct.dataclass
class TrainState:
    """A pytree. Order and randomness are functions of `step` and the seed, so this is all.

    Attributes:
      step: steps taken, int32.
      params: weights, as flax names them.
      batch_stats: running mean and variance of each BatchNorm.
      opt_state: the optimiser's.
    """

    step: Any  # while a pytree is mapped, anything may stand for an array
    params: Any
    batch_stats: Any
    opt_state: Any
