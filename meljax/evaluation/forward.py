"""The network in evaluation mode, without masks: from windows of raw data to logits.

Training, evaluation, prediction and export all call `forward`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree, Shaped

from meljax.features.frontend import Frontend, to_images
from meljax.util.devices import jit, replicated, split_batch


class Model(NamedTuple):
    """A network with its preprocessing, class names in the order of the logits, and weights.

    `variables` are `{'params': ..., 'batch_stats': ...}`, replicated over `mesh`.
    """

    network: nn.Module
    frontend: Frontend
    classes: tuple[str, ...]
    mesh: Mesh
    variables: PyTree


def forward(
    network: nn.Module, variables: PyTree, images: Float[Array, "batch rows columns channel"]
) -> Float[Array, "batch classes"]:
    """Returns the logits of images in 0…1."""
    weight = jnp.ones(images.shape[0])  # not len: the exported batch size is symbolic
    return network.apply(variables, images, weight, train=False)


@functools.partial(jit, static_argnames=("network", "frontend", "mesh"))
def window_logits(
    network: nn.Module,
    frontend: Frontend,
    mesh: Mesh,
    variables: PyTree,
    windows: Shaped[Array, "batch window ..."],
) -> Float[Array, "batch classes"]:
    """Returns the logits of windows of raw data, whose shape `Frontend.windows` describes.

    All callers pass `devices.scoring_batch` windows. They therefore run the same compiled program
    and get the same bits.
    """
    windows = jax.lax.with_sharding_constraint(windows, split_batch(mesh))
    logits = forward(network, variables, to_images(frontend, windows))
    return jax.lax.with_sharding_constraint(logits, replicated(mesh))
