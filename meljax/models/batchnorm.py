"""Batch normalisation as PyTorch's, over the real items of a padded batch."""

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
    refuses it, here it leaves the running statistics alone. A batch of padding alone is not
    supported. flax's own layer keeps the biased variance, hence this one.
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
            mean, var, count = _moments(x, weight)
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                several = count > 1
                running_mean.value = self._moved(running_mean.value, mean, several)
                running_var.value = self._moved(running_var.value, unbiased, several)
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x - _wide(mean)) * _wide(factor) + _wide(bias)

    def _moved(
        self,
        running: Float[Array, " channel"],
        batch: Float[Array, " channel"],
        several: Bool[Array, ""],
    ) -> Float[Array, " channel"]:
        moved = self.momentum * running + (1 - self.momentum) * jax.lax.stop_gradient(batch)
        return jnp.where(several, moved, running)


def _moments(
    x: Float[Array, "batch rows columns channel"], weight: Float[Array, " batch"]
) -> tuple[Float[Array, " channel"], Float[Array, " channel"], Float[Array, ""]]:
    """Returns mean, biased variance and number of values per channel of the items of weight 1."""
    count = weight.sum() * (x.shape[1] * x.shape[2])
    share = (weight / count)[:, None, None, None]
    mean = (x * share).sum((0, 1, 2))
    return mean, (jnp.square(x - _wide(mean)) * share).sum((0, 1, 2)), count


def _wide(channel: Float[Array, " channel"]) -> Float[Array, "1 1 1 channel"]:
    return channel[None, None, None, :]
