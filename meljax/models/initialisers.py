"""PyTorch's initial weights, which the original recipe starts from."""

import jax
import jax.numpy as jnp
from flax import linen as nn

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""±1/√fan_in, uniform: `torch.nn.Conv2d` and `Linear` (kaiming_uniform with a = √5)."""

normal_fan_out = nn.initializers.variance_scaling(2, "fan_out", "normal")
"""Normal, variance 2/fan_out: torchvision's ResNet convolutions (He et al. 2015)."""


def linear_bias(fan_in: int) -> nn.initializers.Initializer:
    """Returns the initialiser of a linear layer's bias: uniform in ±1/√fan_in."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
