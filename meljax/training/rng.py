"""Random keys as a function of (seed, stream, counts): no state is carried along or saved.

Streams never share a key, and a new stream changes no other. A resumed run draws the same numbers
as an uninterrupted one.
"""

import enum

import jax


class Stream(enum.IntEnum):
    """Purposes of random numbers. Changing a value changes every run."""

    INIT = 1
    ORDER = 2
    AUGMENT = 3


def key(seed: int, stream: Stream, *counts: int | jax.Array) -> jax.Array:
    """Returns the PRNG key of `stream`, folded with each of `counts` (an epoch, a step, …)."""
    # Other generators give other numbers for a batch of keys than for each key.
    folded = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream)
    for count in counts:
        folded = jax.random.fold_in(folded, count)
    return folded
