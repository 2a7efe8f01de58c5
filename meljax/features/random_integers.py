"""Random whole numbers from random bits, so that one draw gives all numbers for a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32


def integers_below(
    bits: UInt32[Array, "*shape"], limit: Int[Array, "*#shape"] | int
) -> Int[Array, "*shape"]:
    """Returns whole numbers in 0…`limit` - 1, int32, from independent random bits.

    The remainder of 32 bits makes some numbers more likely, by at most `limit` / 2**32 of their
    probability: below 1e-6 for masks, and 1.3 % for the start of a window in an hour at 16 kHz.
    """
    return jax.lax.rem(bits, jnp.broadcast_to(jnp.uint32(limit), bits.shape)).astype(jnp.int32)
