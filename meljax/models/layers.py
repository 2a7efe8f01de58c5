"""Layers of the networks, besides `BatchNorm`.

Several are written in a form that XLA:CPU computes faster than the usual one. Tests compare them
with the usual forms: values and gradients are equal up to rounding.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Maps = Float[Array, "batch rows columns channel"]
"""Images or feature maps."""
Weight = Float[Array, " batch"]
"""1 for real items, 0 for padding."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of ImageNet's RGB values in 0…1, with which torchvision's weights were trained."""
MEAN_GRAY = 0.45
"""Subtracted from gray images; about the mean of `IMAGENET_MEAN`."""

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform in ±1/√fan_in: the default of `torch.nn.Conv2d` and `Linear`."""

normal_fan_out = nn.initializers.variance_scaling(2, "fan_out", "normal")
"""Normal with variance 2/fan_out: torchvision's ResNet convolutions (He et al. 2015)."""


def linear_bias(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's initializer of a linear layer's bias: uniform in ±1/√fan_in."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def normalize(
    images: Maps, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "batch rows columns features"]:
    """Returns `(images - mean) / std` by channel, with broadcasting: gray images may become RGB."""
    shape = (1, 1, 1, -1)
    return (images - jnp.array(mean).reshape(shape)) / jnp.array(std).reshape(shape)


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the maximum of `x` and 0; NaN stays NaN.

    XLA:CPU recomputes a maximum with a constant, and everything it depends on, for each of its
    uses (in ResNet-18, the activations of several blocks), but a selection only once.
    """
    return jnp.where(x <= 0, 0, x)


def conv(
    channels: int,
    size: int,
    stride: int,
    dtype: str,
    initializer: nn.initializers.Initializer,
    name: str,
) -> nn.Conv:
    """Returns a convolution without bias, padded equally on both sides as in PyTorch."""
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=initializer,
        name=name,
    )


def exposed(network: nn.Module, x: Maps, name: str) -> Maps:
    """Returns feature maps unchanged, and lets Grad-CAM see them as 'maps1', 'maps2', ….

    Must be called in `network.__call__`. The maps are stored in the collection 'intermediates'. If
    the collection 'perturbations' is given, it is added to them: its gradient is that of the maps.
    """
    if network.is_initializing():  # initial variables are only the weights
        return x
    network.sow("intermediates", name, x)
    return network.perturb(name, x)


def classify(x: Maps, classes: int) -> Float[Array, "batch classes"]:
    """Returns the logits of the last feature maps: their mean and a linear layer 'fc'.

    They are float32, or float64 if `x` is. Must be called in the `__call__` of a network.
    """
    mean = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean((1, 2))
    bias = linear_bias(mean.shape[-1])
    return nn.Dense(classes, kernel_init=uniform_fan_in, bias_init=bias, name="fc")(mean)


class Stem(nn.Module):
    """Normalizes with ImageNet's statistics, then applies a 7 × 7 convolution of stride 2.

    The kernel always has three input channels. For gray images, it is folded with the normalization
    into a kernel for one channel. With kernel W, image x, image of ones 1, and * the convolution
    padded with zeros,

        Σ_c W_c * ((x - mean_c) / std_c) = (Σ_c W_c / std_c) * x - (Σ_c W_c mean_c / std_c) * 1

    The last term is not constant near the border, because the padding follows the normalization.
    On a CPU this takes a third of the multiplications; on accelerators two thirds, because the ones
    are a second channel there.
    """

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: Maps) -> Float[Array, "batch rows2 columns2 features"]:
        """Returns the convolution of the normalized images."""
        kernel = self.param("kernel", normal_fan_out, (7, 7, 3, self.channels))
        if images.shape[-1] == 3:
            normalized = normalize(images, IMAGENET_MEAN, IMAGENET_STD)
            return conv_7x7_stride_2(normalized.astype(self.dtype), kernel.astype(self.dtype))
        mean, std = (jnp.array(x).reshape(1, 1, 3, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
        folded = (kernel / std).sum(2, keepdims=True)
        constant = (kernel * (mean / std)).sum(2, keepdims=True)
        # In bfloat16 and TF32, the difference of two large terms loses digits. Subtracting gray
        # from the images makes both terms small.
        return jax.lax.platform_dependent(
            images - MEAN_GRAY,
            folded,
            MEAN_GRAY * folded - constant,
            cpu=functools.partial(_two_convolutions, self.dtype),
            default=functools.partial(_one_convolution, self.dtype),
        )


GrayKernel = Float[Array, "7 7 1 features"]


def _two_convolutions(
    dtype: str, images: Maps, kernel: GrayKernel, ones_kernel: GrayKernel
) -> Float[Array, "batch rows2 columns2 features"]:
    """Returns the convolution of images plus that of ones, which is the same for all images."""
    ones = conv_7x7_stride_2(jnp.ones_like(images[:1]), ones_kernel)
    return conv_7x7_stride_2(images.astype(dtype), kernel.astype(dtype)) + ones.astype(dtype)


def _one_convolution(
    dtype: str, images: Maps, kernel: GrayKernel, ones_kernel: GrayKernel
) -> Float[Array, "batch rows2 columns2 features"]:
    """Returns the same as `_two_convolutions`, with ones as a second channel.

    One convolution needs fewer GPU kernels than two.
    """
    both = jnp.concatenate([images, jnp.ones_like(images)], 3)
    kernels = jnp.concatenate([kernel, ones_kernel], 2)
    return conv_7x7_stride_2(both.astype(dtype), kernels.astype(dtype))


def conv_7x7_stride_2(
    images: Maps, kernel: Float[Array, "7 7 channel features"]
) -> Float[Array, "batch rows2 columns2 features"]:
    """Returns the convolution of stride 2, padded by 3.

    It is computed with stride 1 over tiles of 2 × 2 pixels whose channels are concatenated, because
    XLA:CPU's convolution is faster with more channels.
    """
    batch, rows, columns, channels = images.shape
    tile_rows, tile_columns = (rows + 1) // 2 + 3, (columns + 1) // 2 + 3
    padding = (3, 2 * tile_rows - 3 - rows), (3, 2 * tile_columns - 3 - columns)
    tiles = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    tiles = tiles.reshape(batch, tile_rows, 2, tile_columns, 2, channels).swapaxes(2, 3)
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, -1).swapaxes(1, 2)
    return jax.lax.conv_general_dilated(
        tiles.reshape(batch, tile_rows, tile_columns, 4 * channels),
        kernel.reshape(4, 4, 4 * channels, -1),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class FewChannelConv(nn.Module):
    """A 3 × 3 convolution of one or three channels, without bias, padded by 1.

    The parameter is that of `nn.Conv`. XLA:CPU computes a convolution as a matrix product, which is
    slow for 9 or 27 products per value. A sum of shifted images, each times one weight, is faster
    and fuses with the next operation.
    """

    features: int

    @nn.compact
    def __call__(self, x: Maps) -> Float[Array, "batch rows columns features"]:
        """Returns the convolution."""
        shape = (3, 3, x.shape[-1], self.features)
        return conv_3x3(x, self.param("kernel", uniform_fan_in, shape).astype(x.dtype))


@jax.custom_vjp
def conv_3x3(
    x: Maps, kernel: Float[Array, "3 3 channel features"]
) -> Float[Array, "batch rows columns features"]:
    """Returns the convolution, padded by 1, as a sum of shifted images.

    The gradient is that of XLA's own convolution, which is faster.
    """
    rows, columns, channels = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + rows, j : j + columns, c : c + 1] * kernel[i, j, c].reshape(1, 1, 1, -1)
        for i in range(3)
        for j in range(3)
        for c in range(channels)
    )


def _conv_3x3_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    def xla_conv(x: Array, kernel: Array) -> Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    return jax.vjp(xla_conv, *residuals)[1](gradient)


conv_3x3.defvjp(lambda x, kernel: (conv_3x3(x, kernel), (x, kernel)), _conv_3x3_backward)


def max_pool_2x2(x: Maps) -> Float[Array, "batch half_rows half_columns channel"]:
    """Returns the maxima of 2 × 2 tiles; drops an odd last row or column, as PyTorch does.

    An axis of length 1 is kept, so that small images are accepted.
    """
    for axis in (2, 1):
        if x.shape[axis] > 1:
            x = _max_pool(jax.lax.slice_in_dim(x, 0, x.shape[axis] // 2 * 2, axis=axis), axis, 2)
    return x


def max_pool_3x3(x: Maps) -> Float[Array, "batch half_rows half_columns channel"]:
    """Returns the maxima of 3 × 3 windows with stride 2 and padding 1.

    Equals `torch.nn.MaxPool2d(3, 2, 1)`: an axis of length n becomes (n + 1) // 2.
    """
    return _max_pool(_max_pool(x, 2, 3), 1, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool(x: Array, axis: int, size: int) -> Array:
    """Returns the maxima of windows with stride 2 along an axis.

    A window of size 2 starts at an even index, a window of size 3 one index earlier. The gradient
    goes to the first maximum of each window, as in PyTorch.
    """
    return functools.reduce(jnp.maximum, _window_values(x, axis, size))


def _max_pool_forward(x: Array, axis: int, size: int) -> tuple[Array, tuple[Array, Array]]:
    y = _max_pool(x, axis, size)
    return y, (x, y)


def _max_pool_backward(
    axis: int, size: int, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    x, y = residuals
    gradients, found = [], jnp.zeros(y.shape, bool)
    for value in _window_values(x, axis, size):
        is_maximum = value == y
        gradients.append(jnp.where(is_maximum & ~found, gradient, 0))
        found = is_maximum | found
    even, odd = gradients[-2:]
    if size == 3:  # the first value of a window is the last (odd) one of the previous window
        odd += _pad_axis(gradients[0], axis, -1, 1, 0.0)
    both = jnp.stack([even, odd], axis + 1)
    shape = [*y.shape[:axis], 2 * y.shape[axis], *y.shape[axis + 1 :]]
    return (jax.lax.slice_in_dim(both.reshape(shape), 0, x.shape[axis], axis=axis),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _window_values(x: Array, axis: int, size: int) -> list[Array]:
    """Returns the first, second … value of every window; `-inf` outside of `x`."""
    missing = x.shape[axis] % 2
    even = jax.lax.slice_in_dim(x, 0, None, 2, axis)
    odd = jax.lax.slice_in_dim(x, 1, None, 2, axis)
    values = [even, _pad_axis(odd, axis, 0, missing, -jnp.inf)]
    if size == 3:
        values.insert(0, _pad_axis(odd, axis, 1, missing - 1, -jnp.inf))
    return values


def _pad_axis(x: Array, axis: int, before: int, after: int, fill: float) -> Array:
    """Returns `x` padded with `fill` along an axis; a negative width removes values."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(fill, x.dtype), widths)
