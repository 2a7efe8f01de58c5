"""ResNet-18, torchvision's variant."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from meljax.models.batchnorm import BatchNorm
from meljax.models.initialisers import linear_bias, normal_fan_out, uniform_fan_in
from meljax.models.normalise import Stem
from meljax.models.pool import max_pool_3x3
from meljax.models.relu import relu


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2015) with torchvision's structure, padding, names and initial weights.

    torchvision's `layer1.0.conv1.weight` is `layer1_0/conv1/kernel` here, `downsample.0` and `.1`
    are `downsample_conv` and `downsample_bn`.

    Attributes:
      classes: number of classes.
      width: channels of the stem; 64 is the published network.
      dtype: of the numbers that convolutions compute with; parameters, statistics and the last
        layer are float32.
    """

    classes: int
    width: int = 64
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        weight: Float[Array, " batch"],
        train: bool,
    ) -> Float[Array, "batch classes"]:
        """Returns logits of pictures in 0…1; `weight` is 1 for real items and 0 for padding."""
        x = Stem(self.width, self.dtype, name="conv1")(x)
        x = BatchNorm(name="bn1")(x, weight, train)
        x = relu(max_pool_3x3(x))  # in this order a quarter of the work, and the same
        for layer in range(4):
            for block in range(2):
                channels = self.width * 2**layer
                stride = 2 if layer > 0 and block == 0 else 1
                name = f"layer{layer + 1}_{block}"
                x = BasicBlock(channels, stride, self.dtype, name=name)(x, weight, train)
        x = x.astype(jnp.float32)
        self.sow("intermediates", "features", x)
        pooled = x.mean((1, 2))
        bias = linear_bias(pooled.shape[-1])
        return nn.Dense(self.classes, kernel_init=uniform_fan_in, bias_init=bias, name="fc")(pooled)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with BatchNorm, added to the input."""

    channels: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch rows columns channel"],
        weight: Float[Array, " batch"],
        train: bool,
    ) -> Float[Array, "batch rows2 columns2 channel2"]:
        """Returns `relu(x + residual)`, `x` brought to the same shape by a 1 × 1 convolution."""
        residual = _conv(self.channels, 3, self.stride, "conv1", self.dtype)(x)
        residual = relu(BatchNorm(name="bn1")(residual, weight, train))
        residual = _conv(self.channels, 3, 1, "conv2", self.dtype)(residual)
        residual = BatchNorm(name="bn2")(residual, weight, train)
        if self.stride > 1:
            x = _conv(self.channels, 1, self.stride, "downsample_conv", self.dtype)(x)
            x = BatchNorm(name="downsample_bn")(x, weight, train)
        return relu(x + residual)


def _conv(channels: int, size: int, stride: int, name: str, dtype: str = "float32") -> nn.Conv:
    """A convolution without bias, padded equally on both sides, also when strided: as torch."""
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=normal_fan_out,
        name=name,
    )
