"""Max-pooling as maxima of shifted slices.

XLA's gradient of a window reduction is several times slower on a CPU.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool_2x2(
    x: Float[Array, "batch rows columns channel"],
) -> Float[Array, "batch half_rows half_columns channel"]:
    """Returns the maxima of 2 × 2 tiles; an odd last row or column is dropped, as in PyTorch.

    An axis that is already 1 stays, so that small pictures pass too.
    """
    _, rows, columns, _ = x.shape
    if rows > 1:
        x = jnp.maximum(x[:, 0 : rows - 1 : 2], x[:, 1::2])
    if columns > 1:
        x = jnp.maximum(x[:, :, 0 : columns - 1 : 2], x[:, :, 1::2])
    return x


def max_pool_3x3(
    x: Float[Array, "batch rows columns channel"],
) -> Float[Array, "batch half_rows half_columns channel"]:
    """Returns the maxima of 3 × 3 windows, two apart, over a border of one.

    As `torch.nn.MaxPool2d(3, 2, 1)`: an axis of n becomes (n + 1) // 2. Where several values of a
    window are the largest they share its gradient, which PyTorch gives to the first.
    """
    rows, columns = ((n + 1) // 2 for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    slices = [x[:, shift : shift + 2 * rows - 1 : 2] for shift in range(3)]
    x = jnp.maximum(jnp.maximum(slices[0], slices[1]), slices[2])
    slices = [x[:, :, shift : shift + 2 * columns - 1 : 2] for shift in range(3)]
    return jnp.maximum(jnp.maximum(slices[0], slices[1]), slices[2])
