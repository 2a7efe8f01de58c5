"""Random integers from random bits, so that one call draws all random numbers of a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32


def integers_below(
    bits: UInt32[Array, "*shape"], limit: Int[Array, "*#shape"] | int
) -> Int[Array, "*shape"]:
    """Returns int32 integers in 0…`limit` - 1 from independent random bits.

    `limit` must be 1 to 2**31. The integers are remainders of 32-bit numbers. Some are therefore
    more likely than others, by a factor of about 1 + `limit` / 2**32: 1.000001 for masks on an
    image of 4,000 columns, 1.013 for the starts of windows in an hour at 16 kHz.
    """
    return jax.lax.rem(bits, jnp.broadcast_to(jnp.uint32(limit), bits.shape)).astype(jnp.int32)
