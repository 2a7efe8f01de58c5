"""The rectifier, in the form that XLA:CPU computes once."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the larger of `x` and 0; what is no number stays none.

    XLA:CPU repeats a maximum with a constant, and all that leads to it, in whatever reads it: in
    ResNet-18 the activations of several blocks, in the strided order of a weight gradient. A
    selection it computes once.
    """
    return jnp.where(x <= 0, 0, x)
