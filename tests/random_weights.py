"""Random weights drawn by NumPy, because a network's own draws take seconds to compile."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def numpy_variables(network: nn.Module, images: np.ndarray) -> dict:
    """Returns random variables of a network for images of this shape.

    Biases, scales and statistics are not at their initial 0 and 1, so a test notices if one is
    ignored.
    """
    rng = np.random.default_rng(1)

    def init(images):
        return network.init(jax.random.key(0), images, jnp.ones(len(images)), False)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        if name == "var":
            return rng.uniform(0.3, 2, leaf.shape)
        return rng.normal(1 if name == "scale" else 0, 0.3, leaf.shape)

    like = jax.eval_shape(init, images)
    return jax.tree_util.tree_map_with_path(lambda *x: draw(*x).astype(np.float32), like)
