"""Keys depend only on seed, stream and counts."""

import jax
import numpy as np

from meljax.training.rng import Stream, key


def bits(*arguments) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key(*arguments))).tolist())


def test_the_generator_does_not_depend_on_the_setting():
    with jax.default_prng_impl("rbg"):
        assert str(jax.random.key_impl(key(7, Stream.ORDER, 5))) == "threefry2x32"


def test_every_seed_stream_and_count_has_a_different_key():
    keys = {
        bits(seed, stream, *counts)
        for seed in (0, 1)
        for stream in Stream
        for counts in ((), (0,), (1,), (2,), (1, 2), (2, 1))
    }
    assert len(keys) == 2 * len(Stream) * 6


def test_keys_are_pinned():
    assert [(stream.name, stream.value) for stream in Stream] == [
        ("INIT", 1),
        ("ORDER", 2),
        ("AUGMENT", 3),
    ]
    expected = jax.random.key(7)
    for number in (2, 5, 11):
        expected = jax.random.fold_in(expected, number)
    assert bits(7, Stream.ORDER, 5, 11) == tuple(np.asarray(jax.random.key_data(expected)).tolist())
