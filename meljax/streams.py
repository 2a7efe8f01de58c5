"""Randomness as a function of (seed, stream, count): nothing is carried along, nothing is saved.

Two streams never share a key, so that adding one changes no other, and a run that is resumed draws
what the uninterrupted one would have drawn.
"""

import enum

import jax


class Stream(enum.IntEnum):
    """What a random number is for. Numbers are fixed: changing one changes every run."""

    INIT = 1
    ORDER = 2
    AUGMENT = 3


def key(seed: int, stream: Stream, *counts: int | jax.Array) -> jax.Array:
    """Returns the PRNG key of `stream`, folded with each of `counts` (an epoch, a step, ...)."""
    folded = jax.random.fold_in(jax.random.key(seed), stream)
    for count in counts:
        folded = jax.random.fold_in(folded, count)
    return folded
