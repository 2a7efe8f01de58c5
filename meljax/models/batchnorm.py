"""Batch normalisation as PyTorch's, over the real items of a padded batch."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float


class BatchNorm(nn.Module):
    """Normalises each channel over batch, rows and columns (Ioffe & Szegedy 2015).

    As `torch.nn.BatchNorm2d` with its defaults: epsilon 1e-5; the running statistics move by a
    tenth per step (`momentum` 0.9 here is torch's 0.1), the running variance being the unbiased
    one. Under `jit` over a mesh the statistics are those of the whole batch, whatever the number of
    devices.

    A single value per channel, a batch of one with maps of one pixel, has no variance: PyTorch
    refuses it, here it leaves the running statistics alone. Whatever the type of the maps, the
    statistics are float32. A batch of padding alone is not supported. flax's own layer keeps the
    biased variance, hence this one.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        weight: Float[Array, " batch"],
        train: bool,
    ) -> Float[Array, "batch rows columns channel"]:
        """Normalises `x`; `weight` is 1 for real items and 0 for padding (used in training)."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            y, (mean, var, count) = _normalised(x, weight, scale, bias, self.epsilon)
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                several = count > 1
                running_mean.value = self._moved(running_mean.value, mean, several)
                running_var.value = self._moved(running_var.value, unbiased, several)
            return y
        factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
        y = (x - _wide(running_mean.value)) * _wide(factor) + _wide(bias)
        return y.astype(x.dtype)

    def _moved(
        self,
        running: Float[Array, " channel"],
        batch: Float[Array, " channel"],
        several: Bool[Array, ""],
    ) -> Float[Array, " channel"]:
        moved = self.momentum * running + (1 - self.momentum) * jax.lax.stop_gradient(batch)
        return jnp.where(several, moved, running)


Moments = tuple[Float[Array, " channel"], Float[Array, " channel"], Float[Array, ""]]
"""Mean and biased variance of each channel, and number of values."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalised(
    x: Float[Array, "batch rows columns channel"],
    weight: Float[Array, " batch"],
    scale: Float[Array, " channel"],
    bias: Float[Array, " channel"],
    epsilon: float,
) -> tuple[Float[Array, "batch rows columns channel"], Moments]:
    """Returns `x` normalised by its own moments, and those; no gradient flows through them.

    What XLA derives reads the maps several times more than the gradient that is written out here
    (Ioffe & Szegedy 2015, section 3): half the time on a CPU.
    """
    return _forward(x, weight, scale, bias, epsilon)[0]


def _forward(
    x: Array, weight: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[tuple[Array, Moments], tuple[Array, ...]]:
    mean, var, count = _moments(x, weight)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - _wide(mean)) * _wide(scale * inverse) + _wide(bias)
    return (y.astype(x.dtype), (mean, var, count)), (x, weight, scale, mean, inverse, count)


def _backward(
    epsilon: float, kept: tuple[Array, ...], gradients: tuple[Array, Moments]
) -> tuple[Array, Array, Array, Array]:
    del epsilon
    x, weight, scale, mean, inverse, count = kept
    g = gradients[0].astype(jnp.float32)
    centred = x - _wide(mean)
    of_bias = channel_sum(g)
    of_scale = channel_sum(g * centred) * inverse
    share = (weight / count)[:, None, None, None]
    through_moments = _wide(of_bias) + centred * _wide(of_scale * inverse)
    of_x = (g - share * through_moments) * _wide(scale * inverse)
    return of_x.astype(x.dtype), jnp.zeros_like(weight), of_scale, of_bias


_normalised.defvjp(_forward, _backward)


def _moments(
    x: Float[Array, "batch rows columns channel"], weight: Float[Array, " batch"]
) -> Moments:
    """Returns the moments of the items of weight 1, in one pass.

    Around a value of each channel's own: near the mean, so that the squares do not cancel.
    """
    around = jax.lax.stop_gradient(x[0, 0, 0]).astype(jnp.float32)
    real = weight[:, None, None, None]
    count = weight.sum() * (x.shape[1] * x.shape[2])
    away = x - _wide(around)
    first = channel_sum(away * real) / count
    second = channel_sum(jnp.square(away) * real) / count
    return around + first, jnp.maximum(second - jnp.square(first), 0), count


def channel_sum(x: Float[Array, "batch rows columns channel"]) -> Float[Array, " channel"]:
    """Returns the sum of each channel.

    XLA:CPU, with the options of `backend`, writes to memory whatever it sums more than 32 values
    of. A first sum over few places of each picture fuses with what makes the values, and takes a
    tenth of the time; less where the number of places has no divisor up to 16.
    """
    return jax.lax.platform_dependent(x, cpu=_sum_in_two, default=_sum)


def _sum(x: Float[Array, "batch rows columns channel"]) -> Float[Array, " channel"]:
    return x.sum((0, 1, 2))


def _sum_in_two(x: Float[Array, "batch rows columns channel"]) -> Float[Array, " channel"]:
    batch, rows, columns, channels = x.shape
    places = rows * columns
    few = max(n for n in range(1, 17) if places % n == 0)
    partial = x.reshape(batch, few, places // few, channels).sum(1)
    # Without the barrier XLA makes one sum of the two.
    return jax.lax.optimization_barrier(partial).sum((0, 1))


def _wide(channel: Float[Array, " channel"]) -> Float[Array, "1 1 1 channel"]:
    return channel[None, None, None, :]
