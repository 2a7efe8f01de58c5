"""The network of four convolutions."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from meljax.models.batchnorm import BatchNorm
from meljax.models.initialisers import linear_bias, uniform_fan_in
from meljax.models.normalise import normalise
from meljax.models.pool import max_pool_2x2
from meljax.models.relu import relu
from meljax.models.thin import ThinConv


class CNN(nn.Module):
    """Four times 3 × 3 convolution, BatchNorm, 2 × 2 max-pool and ReLU; mean; linear.

    Pictures in 0…1 are brought to -1…1 first. The convolutions have no bias: BatchNorm subtracts it
    again. Weights begin as PyTorch's do.

    Attributes:
      classes: number of classes.
      width: channels of the first convolution; each of the others doubles them.
      dtype: of the numbers that convolutions compute with; parameters, statistics and the last
        layer are float32.
    """

    classes: int
    width: int = 32
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        weight: Float[Array, " batch"],
        train: bool,
    ) -> Float[Array, "batch classes"]:
        """Returns logits of pictures in 0…1; `weight` is 1 for real items and 0 for padding."""
        x = normalise(x, (0.5,), (0.5,)).astype(self.dtype)
        for layer in range(4):
            name = f"conv{layer + 1}"
            x = ThinConv(self.width, name=name)(x) if layer == 0 else self._conv(layer, name)(x)
            x = BatchNorm(name=f"bn{layer + 1}")(x, weight, train)
            x = relu(max_pool_2x2(x))  # in this order a quarter of the work, and the same
        x = x.astype(jnp.float32)
        self.sow("intermediates", "features", x)
        pooled = x.mean((1, 2))
        bias = linear_bias(pooled.shape[-1])
        return nn.Dense(self.classes, kernel_init=uniform_fan_in, bias_init=bias, name="fc")(pooled)

    def _conv(self, layer: int, name: str) -> nn.Conv:
        channels, start = self.width * 2**layer, uniform_fan_in
        return nn.Conv(
            channels,
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=start,
            name=name,
        )
