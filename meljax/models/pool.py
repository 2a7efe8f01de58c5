"""Max-pooling as maxima of shifted slices, one axis after the other.

XLA's gradient of a window reduction is several times slower on a CPU, and what JAX derives from
maxima reads the maps more often than the gradient that is written out here. Where several values of
a window are the largest, the first has its gradient, as in PyTorch; masks make many equal ones.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool_2x2(
    x: Float[Array, "batch rows columns channel"],
) -> Float[Array, "batch half_rows half_columns channel"]:
    """Returns the maxima of 2 × 2 tiles; an odd last row or column is dropped, as in PyTorch.

    An axis that is already 1 stays, so that small pictures pass too.
    """
    for axis in (2, 1):
        if x.shape[axis] > 1:
            x = _pool(jax.lax.slice_in_dim(x, 0, x.shape[axis] // 2 * 2, axis=axis), axis, 2)
    return x


def max_pool_3x3(
    x: Float[Array, "batch rows columns channel"],
) -> Float[Array, "batch half_rows half_columns channel"]:
    """Returns the maxima of 3 × 3 windows, two apart, over a border of one.

    As `torch.nn.MaxPool2d(3, 2, 1)`: an axis of n becomes (n + 1) // 2.
    """
    return _pool(_pool(x, 2, 3), 1, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _pool(x: Array, axis: int, size: int) -> Array:
    """Returns the maxima of windows of 2 or 3 along an axis; those of 3 begin one before it."""
    return functools.reduce(jnp.maximum, _shifted(x, axis, size))


def _forward(x: Array, axis: int, size: int) -> tuple[Array, tuple[Array, Array]]:
    y = _pool(x, axis, size)
    return y, (x, y)


def _backward(axis: int, size: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, y = kept
    shares, taken = [], jnp.zeros(y.shape, bool)
    for value in _shifted(x, axis, size):
        largest = value == y
        shares.append(jnp.where(largest & ~taken, gradient, 0))
        taken = largest | taken
    even, odd = shares[-2:]
    if size == 3:  # what comes before a window is the odd place of the one before
        odd += _moved(shares[0], axis, -1, 1, 0.0)
    both = jnp.stack([even, odd], axis + 1)
    shape = [*y.shape[:axis], 2 * y.shape[axis], *y.shape[axis + 1 :]]
    return (jax.lax.slice_in_dim(both.reshape(shape), 0, x.shape[axis], axis=axis),)


_pool.defvjp(_forward, _backward)


def _shifted(x: Array, axis: int, size: int) -> list[Array]:
    """Returns the first, second … value of each window; `-inf` stands outside."""
    length = x.shape[axis]
    missing = length % 2
    even = jax.lax.slice_in_dim(x, 0, None, 2, axis)
    odd = jax.lax.slice_in_dim(x, 1, None, 2, axis)
    values = [even, _moved(odd, axis, 0, missing, -jnp.inf)]
    if size == 3:
        values.insert(0, _moved(odd, axis, 1, missing - 1, -jnp.inf))
    return values


def _moved(x: Array, axis: int, before: int, after: int, fill: float) -> Array:
    """Returns `x` with `fill` put before and after it on an axis; less than 0 takes away."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(fill, x.dtype), widths)
