"""Batch normalization as in PyTorch, over the real items of a padded batch."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from meljax.models.layers import Maps, Weight


class BatchNorm(nn.Module):
    """Normalizes each channel over batch, rows and columns (Ioffe & Szegedy 2015).

    Equals `torch.nn.BatchNorm2d` with its defaults: epsilon 1e-5, `momentum` 0.9 (0.1 in torch),
    and the unbiased variance as running statistic, where flax's own layer keeps the biased one.
    Under `jit` over a mesh, the statistics are those of the whole batch for any number of devices.
    They are float32, or float64 if the weights are.

    A single value per channel (a batch of one with maps of one pixel) has no variance: PyTorch
    raises an error, this layer leaves the running statistics unchanged. A batch of padding only
    gives NaN.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Maps, weight: Weight, train: bool) -> Maps:
        """Returns `x` normalized by its own statistics in training, else by the running ones.

        Items whose `weight` is 0 (padding) do not count in the statistics.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            y, (mean, var, count) = _normalize(x, weight, scale, bias, self.epsilon)
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                several = count > 1
                running_mean.value = self._update(running_mean.value, mean, several)
                running_var.value = self._update(running_var.value, unbiased, several)
            return y
        factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
        y = (x - _expand(running_mean.value)) * _expand(factor) + _expand(bias)
        return y.astype(x.dtype)

    def _update(self, running: Array, batch: Array, several: Bool[Array, ""]) -> Array:
        """Returns the updated running statistic; unchanged if the batch has a single value."""
        updated = self.momentum * running + (1 - self.momentum) * jax.lax.stop_gradient(batch)
        return jnp.where(several, updated, running)


Channel = Float[Array, " channel"]
Moments = tuple[Channel, Channel, Float[Array, ""]]
"""Mean and biased variance of each channel, and number of values."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize(
    x: Maps, weight: Weight, scale: Channel, bias: Channel, epsilon: float
) -> tuple[Maps, Moments]:
    """Returns `x` normalized by its own moments, and the moments, which carry no gradient.

    The gradient is explicit (Ioffe & Szegedy 2015, section 3), because the one that JAX derives
    reads the maps more often.
    """
    return _forward(x, weight, scale, bias, epsilon)[0]


def _forward(
    x: Array, weight: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[tuple[Array, Moments], tuple[Array, ...]]:
    mean, var, count = _moments(x, weight)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - _expand(mean)) * _expand(scale * inverse) + _expand(bias)
    return (y.astype(x.dtype), (mean, var, count)), (x, weight, scale, mean, inverse, count)


def _backward(
    epsilon: float, residuals: tuple[Array, ...], gradients: tuple[Array, Moments]
) -> tuple[Array, Array, Array, Array]:
    del epsilon
    x, weight, scale, mean, inverse, count = residuals
    gradient = gradients[0].astype(scale.dtype)
    centered = x - _expand(mean)
    bias_gradient, product = channel_sums(gradient, gradient * centered)
    scale_gradient = product * inverse
    share = (weight / count)[:, None, None, None]
    through_moments = _expand(bias_gradient) + centered * _expand(scale_gradient * inverse)
    x_gradient = (gradient - share * through_moments) * _expand(scale * inverse)
    return x_gradient.astype(x.dtype), jnp.zeros_like(weight), scale_gradient, bias_gradient


_normalize.defvjp(_forward, _backward)


def _moments(x: Maps, weight: Weight) -> Moments:
    """Returns the moments of the items of weight 1, in one pass.

    The variance is the mean square minus the squared mean, which is imprecise if the mean is large.
    So one value of each channel, which is near its mean, is subtracted first.
    """
    precise = jnp.promote_types(x.dtype, jnp.float32)
    shift = jax.lax.stop_gradient(x[0, 0, 0]).astype(precise)
    real = weight[:, None, None, None]
    count = weight.sum() * (x.shape[1] * x.shape[2])
    shifted = x - _expand(shift)
    sums = channel_sums(shifted * real, jnp.square(shifted) * real)
    first, second = sums[0] / count, sums[1] / count
    return shift + first, jnp.maximum(second - jnp.square(first), 0), count


def channel_sums(one: Maps, two: Maps) -> tuple[Channel, Channel]:
    """Returns the sums of each channel of two arrays.

    They are computed in two stages: first within parts of each image, then over all parts and
    images.
    """
    return jax.lax.platform_dependent(one, two, cpu=_sums_on_cpu, default=_sums_on_gpu)


def _sums_on_cpu(one: Maps, two: Maps) -> tuple[Channel, Channel]:
    """Returns `channel_sums`.

    With the options of `util.devices`, XLA:CPU writes the input of every sum over more than 32
    values to memory. A first sum over up to 16 pixels of each image fuses with the computation of
    the input instead. It helps less if no number in 2…16 divides the pixel count.
    """
    pixels = one.shape[1] * one.shape[2]
    few = max(n for n in range(1, 17) if pixels % n == 0)
    first, second = (_partial_sums(x, pixels // few).sum((0, 1)) for x in (one, two))
    return first, second


def _sums_on_gpu(one: Maps, two: Maps) -> tuple[Channel, Channel]:
    """Returns `channel_sums`, in two kernels on a GPU. The first one also computes both arrays.

    Each image is divided into parts of at least 48 pixels, with at most 256 parts in the batch, to
    occupy all multiprocessors. Smaller images and larger batches have one part per image.
    """
    batch, pixels = one.shape[0], one.shape[1] * one.shape[2]
    most = min(256 // batch, pixels // 48)
    parts = max((n for n in range(1, most + 1) if pixels % n == 0), default=1)
    zero = jnp.zeros((), one.dtype)

    def add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] + b[0], a[1] + b[1]

    sums = _partial_sums(one, parts), _partial_sums(two, parts)
    first, second = jax.lax.reduce(sums, (zero, zero), add, (0, 1))
    return first, second


def _partial_sums(x: Maps, parts: int) -> Float[Array, "batch parts channel"]:
    """Returns sums over pixels that are `parts` apart."""
    batch, rows, columns, channels = x.shape
    sums = x.reshape(batch, rows * columns // parts, parts, channels).sum(1)
    # Without the barrier, XLA merges these sums with the next ones.
    return jax.lax.optimization_barrier(sums)


def _expand(channel: Channel) -> Float[Array, "1 1 1 channel"]:
    return channel[None, None, None, :]
