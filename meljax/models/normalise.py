"""Normalisation of pictures in 0…1, and the convolution that takes it into its kernel."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from meljax.models.initialisers import normal_fan_out

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in 0…1: what torchvision's weights were trained on."""
GREY = 0.45


def normalise(
    images: Float[Array, "batch rows columns channel"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "batch rows columns features"]:
    """Returns `(images - mean) / std`, channel by channel.

    One mean serves all channels; three on a grey picture repeat it three times.
    """
    shape = (1, 1, 1, -1)
    return (images - jnp.array(mean).reshape(shape)) / jnp.array(std).reshape(shape)


class Stem(nn.Module):
    """Normalisation by ImageNet's figures and the 7 × 7 convolution, stride 2, that follows.

    The parameter is the kernel for three channels, whatever the pictures. For grey ones, channels
    and normalisation are folded into a kernel for one: the same function of the same parameter, at
    a third of the cost. With W the kernel, x the picture and * the convolution, padded with zeros,

        Σ_c W_c * ((x - mean_c) / std_c) = (Σ_c W_c / std_c) * x - (Σ_c W_c mean_c / std_c) * 1

    where 1 is a picture of ones: near the border its convolution is smaller, since padding is zero
    after normalisation.
    """

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch rows columns channel"]
    ) -> Float[Array, "batch rows2 columns2 features"]:
        """Returns the convolution of the normalised pictures."""
        kernel = self.param("kernel", normal_fan_out, (7, 7, 3, self.channels))
        if images.shape[-1] == 3:
            normalised = normalise(images, IMAGENET_MEAN, IMAGENET_STD)
            return strided_7x7(normalised.astype(self.dtype), kernel.astype(self.dtype))
        mean, std = (jnp.array(x).reshape(1, 1, 3, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
        folded = (kernel / std).sum(2, keepdims=True)
        constant = (kernel * (mean / std)).sum(2, keepdims=True)
        # In bfloat16 the difference of the two terms would lose digits: around grey they are small.
        grey = 0.0 if self.dtype == "float32" else GREY
        ones = jnp.ones_like(images[:1])
        varying = strided_7x7((images - grey).astype(self.dtype), folded.astype(self.dtype))
        return varying - strided_7x7(ones, constant - grey * folded).astype(self.dtype)


def strided_7x7(
    images: Float[Array, "batch rows columns channel"],
    kernel: Float[Array, "7 7 channel features"],
) -> Float[Array, "batch rows2 columns2 features"]:
    """Returns the convolution of stride 2 over a border of three zeros.

    As one of stride 1 of tiles of 2 × 2 pixels, whose channels stand behind each other: with more
    channels, XLA:CPU's convolution is faster.
    """
    batch, rows, columns, channels = images.shape
    down, across = (rows + 1) // 2 + 3, (columns + 1) // 2 + 3
    borders = (3, 2 * down - 3 - rows), (3, 2 * across - 3 - columns)
    tiles = jnp.pad(images, ((0, 0), *borders, (0, 0)))
    tiles = tiles.reshape(batch, down, 2, across, 2, channels).swapaxes(2, 3)
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, -1).swapaxes(1, 2)
    return jax.lax.conv_general_dilated(
        tiles.reshape(batch, down, across, 4 * channels),
        kernel.reshape(4, 4, 4 * channels, -1),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
