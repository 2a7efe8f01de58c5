"""A network that compiles in a fraction of the time of the real ones."""

from flax import linen as nn

from meljax.models.batch_norm import BatchNorm
from meljax.models.layers import (
    classify,
    conv,
    exposed,
    max_pool_2x2,
    normalize,
    relu,
    uniform_fan_in,
)


class SmallNetwork(nn.Module):
    """One block of the CNN, for tests of what surrounds a network."""

    classes: int
    width: int = 4
    dtype: str = "float32"  # of the convolution

    @nn.compact
    def __call__(self, x, weight, train):
        x = normalize(x, (0.5,), (0.5,)).astype(self.dtype)
        x = conv(self.width, 3, 1, self.dtype, uniform_fan_in, "conv1")(x)
        x = BatchNorm(name="bn1")(x, weight, train)
        x = exposed(self, relu(max_pool_2x2(x)), "maps1")
        return classify(x, self.classes)
