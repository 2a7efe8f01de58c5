"""What changes while a run trains, and is saved."""

from typing import Any

import flax
import jax
from jaxtyping import Array, Int, PyTree


@flax.struct.dataclass
class TrainState:
    """A pytree. Order and randomness are functions of `step` and the seed, so this is all.

    Attributes:
      step: steps taken, int32.
      params: weights, as flax names them.
      batch_stats: running mean and variance of each BatchNorm.
      opt_state: the optimiser's.
    """

    step: Int[Array, ""]
    params: PyTree[jax.Array]
    batch_stats: PyTree[jax.Array]
    opt_state: Any
