"""Usual forms of the layers that meljax computes in a faster way."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from meljax.models import batch_norm as batch_norm_lib
from meljax.models import cnn, layers, resnet
from meljax.models.layers import normal_fan_out, uniform_fan_in


def batch_norm(x, weight, scale, bias, epsilon):
    """Two passes and the gradient that JAX derives, for a batch without padding."""
    del weight
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    shape = (1, 1, 1, -1)
    y = (x - mean.reshape(shape)) / jnp.sqrt(var + epsilon).reshape(shape)
    y = y * scale.reshape(shape) + bias.reshape(shape)
    return y, jax.lax.stop_gradient((mean, var, jnp.float32(x.size / x.shape[-1])))


class Stem(nn.Module):
    """Repeats the channel of gray images instead of folding the kernel."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images):
        kernel = self.param("kernel", normal_fan_out, (7, 7, 3, self.channels))
        colors = jnp.repeat(images, 3 // images.shape[-1], -1)
        colors = layers.normalize(colors, layers.IMAGENET_MEAN, layers.IMAGENET_STD)
        return jax.lax.conv_general_dilated(
            colors, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


def few_channel_conv(features, name):
    """XLA's own convolution."""
    options = {"padding": 1, "use_bias": False, "kernel_init": uniform_fan_in}
    return nn.Conv(features, (3, 3), name=name, **options)


def use(monkeypatch) -> None:
    """Replaces the faster forms in meljax by the usual ones."""
    monkeypatch.setattr(batch_norm_lib, "_normalize", batch_norm)
    monkeypatch.setattr(cnn, "FewChannelConv", few_channel_conv)
    monkeypatch.setattr(cnn, "max_pool_2x2", lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    monkeypatch.setattr(resnet, "Stem", Stem)
    monkeypatch.setattr(
        resnet, "max_pool_3x3", lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    )
    for module in (cnn, resnet):
        monkeypatch.setattr(module, "relu", jax.nn.relu)
