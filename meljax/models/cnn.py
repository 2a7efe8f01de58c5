"""A network of four convolutions."""

from flax import linen as nn
from jaxtyping import Array, Float

from meljax.models.batch_norm import BatchNorm
from meljax.models.layers import (
    FewChannelConv,
    Maps,
    Weight,
    classify,
    conv,
    exposed,
    max_pool_2x2,
    normalize,
    relu,
    uniform_fan_in,
)


class CNN(nn.Module):
    """Four blocks of 3 × 3 convolution, BatchNorm, 2 × 2 max-pool and ReLU; mean; linear layer.

    Images in 0…1 are scaled to -1…1 first. The convolutions have no bias, because BatchNorm would
    subtract it. Initial weights have PyTorch's default distributions.
    """

    classes: int
    width: int = 32  # channels of the first convolution; each later one has twice as many
    dtype: str = "float32"  # of the convolutions; all else is float32

    @nn.compact
    def __call__(self, x: Maps, weight: Weight, train: bool) -> Float[Array, "batch classes"]:
        """Returns the logits of images in 0…1."""
        x = normalize(x, (0.5,), (0.5,)).astype(self.dtype)
        for layer in range(4):
            name, channels = f"conv{layer + 1}", self.width * 2**layer
            if layer == 0:
                x = FewChannelConv(channels, name=name)(x)
            else:
                x = conv(channels, 3, 1, self.dtype, uniform_fan_in, name)(x)
            x = BatchNorm(name=f"bn{layer + 1}")(x, weight, train)
            x = relu(max_pool_2x2(x))  # equals pool(relu), with a quarter of the work
            x = exposed(self, x, f"maps{layer + 1}")
        return classify(x, self.classes)
