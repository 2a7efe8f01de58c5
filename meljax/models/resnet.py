"""ResNet-18 as in torchvision."""

from flax import linen as nn
from jaxtyping import Array, Float

from meljax.models.batch_norm import BatchNorm
from meljax.models.layers import (
    Maps,
    Stem,
    Weight,
    classify,
    conv,
    exposed,
    max_pool_3x3,
    normal_fan_out,
    relu,
)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2015) with torchvision's structure, padding, names and initial weights.

    torchvision's `layer1.0.conv1.weight` is `layer1_0/conv1/kernel` here; `downsample.0` and `.1`
    are `downsample_conv` and `downsample_bn`.
    """

    classes: int
    width: int = 64  # channels of the stem; 64 in the published network
    dtype: str = "float32"  # of the convolutions; all else is float32

    @nn.compact
    def __call__(self, x: Maps, weight: Weight, train: bool) -> Float[Array, "batch classes"]:
        """Returns the logits of images in 0…1."""
        x = Stem(self.width, self.dtype, name="conv1")(x)
        x = BatchNorm(name="bn1")(x, weight, train)
        x = relu(max_pool_3x3(x))  # equals pool(relu), with a quarter of the work
        for layer in range(4):
            for block in range(2):
                channels = self.width * 2**layer
                stride = 2 if layer > 0 and block == 0 else 1
                name = f"layer{layer + 1}_{block}"
                x = BasicBlock(channels, stride, self.dtype, name=name)(x, weight, train)
            x = exposed(self, x, f"maps{layer + 1}")
        return classify(x, self.classes)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with BatchNorm, added to the input."""

    channels: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Maps, weight: Weight, train: bool
    ) -> Float[Array, "batch rows2 columns2 channel2"]:
        """Returns `relu(x + residual)`; a 1 × 1 convolution reduces `x` if the stride is 2."""
        residual = self._conv(3, self.stride, "conv1")(x)
        residual = relu(BatchNorm(name="bn1")(residual, weight, train))
        residual = self._conv(3, 1, "conv2")(residual)
        residual = BatchNorm(name="bn2")(residual, weight, train)
        if self.stride > 1:
            x = self._conv(1, self.stride, "downsample_conv")(x)
            x = BatchNorm(name="downsample_bn")(x, weight, train)
        return relu(x + residual)

    def _conv(self, size: int, stride: int, name: str) -> nn.Conv:
        return conv(self.channels, size, stride, self.dtype, normal_fan_out, name)
