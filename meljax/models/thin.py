"""The 3 × 3 convolution of pictures of few channels, as a sum of shifted pictures."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from meljax.models.initialisers import uniform_fan_in


class ThinConv(nn.Module):
    """A 3 × 3 convolution without bias, padded by 1, for one or three channels.

    The parameter and its name are those of `nn.Conv`. With 9 products a value or 27 there is too
    little to do for a matrix product, which is what XLA:CPU makes of a convolution; shifted
    pictures times one weight each, added up, fuse with what follows and take a quarter of the time.
    """

    features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch rows columns channel"]
    ) -> Float[Array, "batch rows columns features"]:
        """Returns the convolution."""
        shape = (3, 3, x.shape[-1], self.features)
        return convolve(x, self.param("kernel", uniform_fan_in, shape).astype(x.dtype))


@jax.custom_vjp
def convolve(
    x: Float[Array, "batch rows columns channel"], kernel: Float[Array, "3 3 channel features"]
) -> Float[Array, "batch rows columns features"]:
    """Returns the same as `lax.conv`, up to rounding."""
    rows, columns, channels = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + rows, j : j + columns, c : c + 1] * kernel[i, j, c].reshape(1, 1, 1, -1)
        for i in range(3)
        for j in range(3)
        for c in range(channels)
    )


def _forward(
    x: Float[Array, "batch rows columns channel"], kernel: Float[Array, "3 3 channel features"]
) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    # Backwards it is the plain convolution that is faster.
    return jax.vjp(_plain, *kept)[1](gradient)


def _plain(
    x: Float[Array, "batch rows columns channel"], kernel: Float[Array, "3 3 channel features"]
) -> Float[Array, "batch rows columns features"]:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


convolve.defvjp(_forward, _backward)
