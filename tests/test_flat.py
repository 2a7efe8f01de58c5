"""The state as a few vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from test_step import assert_same_bits, begin, make_task

from meljax.training.flat import flat_layout, join_state, split_state
from meljax.training.state import make_optimizer

pytestmark = pytest.mark.accelerator


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_splitting_a_joined_state_gives_it_back(clip_norm):
    config = small_config(train__clip_norm=clip_norm).train
    task = make_task()._replace(optimizer=make_optimizer(config, 21))
    state, *_ = begin(task)
    numbers = iter(range(10**6))
    like = state
    state = jax.tree.map(
        lambda x: (next(numbers) + jnp.arange(x.size).reshape(x.shape)).astype(x.dtype), state
    )
    layout = flat_layout(state)
    flat = join_state(state, layout)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    vectors = [leaf.shape for leaf in jax.tree.leaves((flat.params, flat.opt_state)) if leaf.ndim]
    assert vectors == [(size,)] * 3
    back = split_state(flat, layout, like)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert_same_bits(back, state)


def test_kernels_are_stored_with_output_channels_first():
    state, *_ = begin(make_task())
    kernel = jnp.arange(24.0).reshape(1, 2, 3, 4)
    params = {"conv": {"kernel": kernel}}
    vector = flat_layout(state.replace(params=params)).params.join(params)
    np.testing.assert_array_equal(vector, kernel.transpose(3, 0, 1, 2).reshape(-1))
