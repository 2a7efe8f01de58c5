"""The state of training as a few long vectors, for accelerators.

With small batches on a GPU, much of a step is spent in many kernels of a few microseconds each.
With vectors, Adam and the check for infinite and NaN values take a few kernels in all, not a few
for each parameter array.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from meljax.training.state import TrainState


class Form(NamedTuple):
    """How a step keeps a tree of arrays: `join` changes the tree to the form, `split` undoes it."""

    join: Callable[[PyTree], Any] = lambda tree: tree
    split: Callable[[Any], PyTree] = lambda tree: tree


class Layout(NamedTuple):
    """The forms of the parameters and of the running statistics; by default both stay trees.

    Adam's moments have the form of the parameters.
    """

    params: Form = Form()
    batch_stats: Form = Form()


TREES = Layout()


def flat_layout(like: TrainState) -> Layout:
    """Returns the layout with one vector for all parameters and one for all statistics."""
    return Layout(_flat(like.params), _flat(like.batch_stats))


def _flat(like: PyTree) -> Form:
    leaves, structure = jax.tree.flatten(like)
    shapes = [_output_channels_first(leaf).shape for leaf in leaves]
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def join(tree: PyTree) -> Float[Array, " values"]:
        parts = [_output_channels_first(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)]
        return jnp.concatenate(parts)

    def split(vector: Float[Array, " values"]) -> PyTree:
        parts = zip(jnp.split(vector, ends), shapes, strict=True)
        leaves = [_output_channels_last(part.reshape(shape)) for part, shape in parts]
        return jax.tree.unflatten(structure, leaves)

    return Form(join, split)


def _output_channels_first(leaf: Array) -> Array:
    """Returns convolution weights with the last axis first, as cuDNN reads and writes them.

    Arrays that are not four-dimensional are returned unchanged.
    """
    return jnp.moveaxis(leaf, -1, 0) if leaf.ndim == 4 else leaf


def _output_channels_last(leaf: Array) -> Array:
    """Reverses `_output_channels_first`."""
    return jnp.moveaxis(leaf, 0, -1) if leaf.ndim == 4 else leaf


def join_state(state: TrainState, layout: Layout) -> TrainState:
    """Returns a state whose parameters, moments and statistics have the forms of `layout`.

    In `state` they are trees.
    """
    return state.replace(
        params=layout.params.join(state.params),
        batch_stats=layout.batch_stats.join(state.batch_stats),
        opt_state=_map_moments(layout.params.join, state, state.opt_state),
    )


def split_state(state: TrainState, layout: Layout, like: TrainState) -> TrainState:
    """Reverses `join_state`; `like` is any state of trees of the same structure."""
    return state.replace(
        params=layout.params.split(state.params),
        batch_stats=layout.batch_stats.split(state.batch_stats),
        opt_state=_map_moments(layout.params.split, like, state.opt_state),
    )


def _map_moments(change: Callable[[Any], Any], like: TrainState, opt_state: PyTree) -> PyTree:
    """Changes the parts of an optimizer state that have the structure of the parameters."""
    structure = jax.tree.structure(like.params)

    def is_moment(part: Any) -> bool:
        return jax.tree.structure(part) == structure

    return jax.tree.map(
        lambda part, value: change(value) if is_moment(part) else value,
        like.opt_state,
        opt_state,
        is_leaf=is_moment,
    )
